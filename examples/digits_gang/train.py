"""Data-parallel training in a gang: each replica is a Ray actor that owns its leased devices and a shard of the digits.

Run it on Terrace:   terrace submit --gpus 1 --replicas 2 -- python train.py --epochs 30
The entrypoint runs once, connects to the lease's private Ray cluster and places one actor per replica with the devices of a replica.
Each step every actor computes the gradient of softmax regression on its shard, the driver averages them (an all-reduce in its plainest
form) and sends the new weights back. Same result as one machine with all the data, computed by the gang.
"""

from __future__ import annotations

import argparse

import numpy as np
import ray
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from terrace import runtime

CLASSES = 10
Floats = NDArray[np.float64]


def softmax(scores: Floats) -> Floats:
    """Return row-wise probabilities."""
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@ray.remote
class Replica:
    """One member of the gang: a shard of the data and the devices that Ray gave it."""

    def __init__(self, features: Floats, labels: NDArray[np.int64]) -> None:
        self.features = features
        self.targets = np.eye(CLASSES)[labels]

    def devices(self) -> list[str]:
        """Return the identifiers of this replica's devices, a subset of the lease's."""
        return [str(device) for device in ray.get_runtime_context().get_accelerator_ids()["GPU"]]

    def gradient(self, weights: Floats) -> tuple[float, Floats]:
        """Return (loss, gradient) of softmax regression on this shard."""
        probabilities = softmax(self.features @ weights)
        loss = -float(np.mean(np.sum(self.targets * np.log(probabilities + 1e-12), axis=1)))
        return loss, self.features.T @ (probabilities - self.targets) / len(self.features)


def main() -> None:
    """Train with one actor per replica and print the accuracy on images that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--steps-per-epoch", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.5)
    options = parser.parse_args()

    job = runtime.context()
    images, digits = load_digits(return_X_y=True)
    features = np.hstack([images / 16.0, np.ones((len(images), 1))])
    train_x, test_x, train_y, test_y = train_test_split(features, digits, test_size=0.25, random_state=0)
    ray.init(address="auto", log_to_driver=False)
    shards = zip(np.array_split(train_x, job.replicas), np.array_split(train_y, job.replicas), strict=True)
    replicas = [Replica.options(num_gpus=job.gpus_per_replica, num_cpus=0).remote(*shard) for shard in shards]
    for number, devices in enumerate(ray.get([replica.devices.remote() for replica in replicas])):
        print(f"replica {number} of {job.replicas} trains on device {', '.join(devices)}", flush=True)

    weights = np.zeros((train_x.shape[1], CLASSES))
    accuracy = 0.0
    for epoch in range(1, options.epochs + 1):
        loss = 0.0
        for _ in range(options.steps_per_epoch):
            answers = ray.get([replica.gradient.remote(weights) for replica in replicas])
            loss = float(np.mean([answer[0] for answer in answers]))
            weights -= options.rate * np.mean([answer[1] for answer in answers], axis=0)
        accuracy = float(np.mean((test_x @ weights).argmax(axis=1) == test_y))
        print(f"epoch {epoch:3d}/{options.epochs}  loss {loss:.4f}  accuracy {accuracy:.4f}", flush=True)
        runtime.report_progress(step=epoch, total=options.epochs, accuracy=round(accuracy, 4))
    print(f"final accuracy {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()
