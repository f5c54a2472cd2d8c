"""Train on scikit-learn's handwritten digits, save as you go, leave when told to, and go on from there in the next attempt.

Run it on Terrace:   terrace submit --gpus 1 --project default -- python train.py --epochs 40
A checkpoint is one file, written beside the old one and moved into its place, so that there is a whole one at every moment. What it holds
(model, optimiser, random numbers, epoch) makes an interrupted training end with the very numbers of one that was never interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from terrace import runtime


def save(state: dict[str, Any], path: Path) -> None:
    """Put a checkpoint in the place of the one before. A kill at any moment leaves the old one or the new one, never half of one."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        joblib.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def train_one_epoch(model: MLPClassifier, order: np.random.Generator, x: np.ndarray, y: np.ndarray) -> None:
    """Show every image to the model once, in a new order."""
    for batch in np.array_split(order.permutation(len(x)), 20):
        model.partial_fit(x[batch], y[batch], classes=range(10))


def main() -> None:
    """Train up to `--epochs` passes in all attempts together and print the accuracy on images that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=64, help="size of the hidden layer")
    parser.add_argument("--save-every", type=int, default=5, help="epochs between two checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())  # the notice: finish the epoch, save, leave
    job = runtime.context()
    checkpoint = job.checkpoint_dir / "digits.joblib"
    images, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, digits, test_size=0.25, random_state=options.seed)
    scaler = StandardScaler().fit(train_x)
    train_x, test_x = scaler.transform(train_x), scaler.transform(test_x)

    if checkpoint.exists():
        state = joblib.load(checkpoint)
        print(f"attempt {job.attempt}: resumed from epoch {state['epoch']}", flush=True)
    else:
        model = MLPClassifier(hidden_layer_sizes=(options.hidden,), random_state=options.seed, learning_rate_init=0.0005)
        state = {"epoch": 0, "model": model, "order": np.random.default_rng(options.seed)}
        print(f"attempt {job.attempt}: started from scratch", flush=True)

    while state["epoch"] < options.epochs:
        train_one_epoch(state["model"], state["order"], train_x, train_y)
        state["epoch"] += 1
        accuracy = round(state["model"].score(test_x, test_y), 4)
        print(f"epoch {state['epoch']:3d}/{options.epochs}  loss {state['model'].loss_:.4f}  accuracy {accuracy:.4f}", flush=True)
        if told.is_set() or state["epoch"] % options.save_every == 0:
            save(state, checkpoint)
            runtime.report_checkpoint(step=state["epoch"], total=options.epochs, accuracy=accuracy)
        else:
            runtime.report_progress(step=state["epoch"], total=options.epochs, accuracy=accuracy)
        if told.is_set():
            print(f"told to stop ({job.notice_file.read_text()}): saved epoch {state['epoch']}, leaving", flush=True)
            return
    print(f"final loss {state['model'].loss_:.6f}", flush=True)


if __name__ == "__main__":
    main()
