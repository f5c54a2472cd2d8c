"""What every command shares: the global options, the session that a command gets, and how a function becomes a command.

Owns `--format`, `--quiet` and `--url`, which may stand before or after any part of the command: the ones nearest to its end win. A
command is a function whose first argument is a `Session`; `command` gives it the global options and refuses a form that it has not, before
anything happens. Does not own printing (output.py) or exit codes (exits.py).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from terrace.sdk.errors import InputError

if TYPE_CHECKING:
    from terrace.cli.output import Output
    from terrace.sdk.client import Client

P = ParamSpec("P")


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"
    QUIET = "quiet"
    CSV = "csv"


FORMS = (Format.TABLE, Format.JSON, Format.QUIET)

FormatOption = Annotated[
    Format | None, typer.Option("--format", help="table for people, json for programs, quiet: only what a script needs; csv: usage only.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="The same as --format quiet.")]
UrlOption = Annotated[str | None, typer.Option("--url", metavar="URL", help="Address of the service. (default: TERRACE_URL, then login's)")]

GLOBAL_PARAMETERS = (
    inspect.Parameter("output_format", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=FormatOption),
    inspect.Parameter("is_quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=QuietOption),
    inspect.Parameter("service_url", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=UrlOption),
)
_CONTEXT = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)


class ReaderLeftError(Exception):
    """Whoever read the output has stopped reading."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The global options as far as they were given."""

    form: Format | None = None
    url: str | None = None


@dataclass
class Session:
    """What a command needs of the world: where it prints, and the service, opened on first use."""

    form: Format
    url: str | None
    _client: Client | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        """The service; NotLoggedInError when there is no key."""
        from terrace.sdk.client import Client

        if self._client is None:
            self._client = Client(self.url)
        return self._client

    @property
    def output(self) -> Output:
        """Where answers are printed."""
        from terrace.cli import output, tables

        if self.form is Format.JSON:
            return output.JsonOutput()
        return output.QuietOutput() if self.form is Format.QUIET else tables.TableOutput()

    def close(self) -> None:
        """Close what was opened."""
        if self._client is not None:
            self._client.close()


def command(
    app: typer.Typer, name: str, *, forms: Sequence[Format] = FORMS, panel: str | None = None
) -> Callable[[Callable[Concatenate[Session, P], int | None]], Callable[Concatenate[Session, P], int | None]]:
    """Make a function a command of `app`: it gets a session and its own options. What it returns is the exit code, None is 0."""

    def register(function: Callable[Concatenate[Session, P], int | None]) -> Callable[Concatenate[Session, P], int | None]:
        def run(context: typer.Context, **options: Any) -> int:
            choices = _merge(context, options)
            form = choices.form or Format.TABLE
            if form not in forms:
                raise InputError("format", f"{form.value} is not a form of `{context.command_path}`", limit=[item.value for item in forms])
            session = Session(form, choices.url)
            for name, kind in bundles.items():
                options[name] = kind(**{item.name: options.pop(item.name) for item in dataclasses.fields(kind)})
            try:
                return function(session, **options) or 0  # type: ignore[call-arg]
            except BrokenPipeError as error:
                raise ReaderLeftError from error  # Typer would end the process with a code of its own
            finally:
                session.close()

        own, bundles = _own_parameters(function)
        _declare(run, own, function)
        app.command(name=name, rich_help_panel=panel)(run)
        return function

    return register


def group(app: typer.Typer, *extra: inspect.Parameter) -> None:
    """Let the global options stand before the commands of `app` too. `extra` options do their work in their own callbacks."""

    def run(context: typer.Context, **options: Any) -> None:
        context.obj = _merge(context, options)

    _declare(run, list(extra), None)
    app.callback()(run)


def _own_parameters(function: Callable[..., Any]) -> tuple[list[inspect.Parameter], dict[str, type[Any]]]:
    """Return a command's own options. A parameter that is a dataclass stands for its fields, so that commands can share options."""
    own: list[inspect.Parameter] = []
    bundles: dict[str, type[Any]] = {}
    for parameter in list(inspect.signature(function, eval_str=True).parameters.values())[1:]:
        kind = parameter.annotation
        if not dataclasses.is_dataclass(kind):
            own.append(parameter)
            continue
        bundles[parameter.name] = kind  # type: ignore[assignment]
        hints = get_type_hints(kind, include_extras=True)
        own += [parameter.replace(name=item.name, default=item.default, annotation=hints[item.name]) for item in dataclasses.fields(kind)]
    return own, bundles


def _declare(run: Callable[..., Any], own: list[inspect.Parameter], function: Callable[..., Any] | None) -> None:
    """Give `run` the signature that Typer reads: its context, its own options, the global ones."""
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    parameters = [_CONTEXT, *keyword_only, *GLOBAL_PARAMETERS]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = function.__doc__ if function is not None else None


def _merge(context: typer.Context, options: dict[str, Any]) -> Choices:
    """Take the global options out of `options` and put them over those given further left."""
    left = context.obj if isinstance(context.obj, Choices) else Choices()
    form, is_quiet, url = options.pop("output_format"), options.pop("is_quiet"), options.pop("service_url")
    if is_quiet and form not in (None, Format.QUIET):
        raise InputError("quiet", f"-q and --format {form.value} exclude each other")
    return Choices(Format.QUIET if is_quiet else form or left.form, url or left.url)
