"""Train a small neural network on scikit-learn's handwritten digits and report every epoch.

Run it on Terrace:   terrace submit --gpus 1 --project default -- python train.py --epochs 20
The data set (1,797 images of 8 x 8) ships inside scikit-learn: nothing is downloaded. The arithmetic runs on the CPU, because the
devices of the demo are simulated; what is leased, metered and billed is the same.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from terrace import runtime


def main() -> None:
    """Train for `--epochs` passes and print the accuracy on images that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=64, help="size of the hidden layer")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    job = runtime.context()
    print(f"job {job.job_id} attempt {job.attempt}: training on devices {', '.join(job.visible_devices)}", flush=True)
    images, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, digits, test_size=0.25, random_state=options.seed)
    scaler = StandardScaler().fit(train_x)
    train_x, test_x = scaler.transform(train_x), scaler.transform(test_x)
    model = MLPClassifier(hidden_layer_sizes=(options.hidden,), random_state=options.seed, learning_rate_init=0.002)
    classes = np.unique(digits)
    order = np.random.default_rng(options.seed)
    accuracy = 0.0
    for epoch in range(1, options.epochs + 1):
        shuffled = order.permutation(len(train_x))
        for batch in np.array_split(shuffled, 20):
            model.partial_fit(train_x[batch], train_y[batch], classes=classes)
        accuracy = model.score(test_x, test_y)
        print(f"epoch {epoch:3d}/{options.epochs}  loss {model.loss_:.4f}  accuracy {accuracy:.4f}", flush=True)
        runtime.report_progress(step=epoch, total=options.epochs, accuracy=round(accuracy, 4))
    print(f"final accuracy {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()
