"""Trains small neural networks on scikit-learn's digits with several settings; records every batch, and the models."""

import itertools
import tempfile
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import penstock

EPOCHS = 20
BATCHES = 45  # an epoch


def main() -> None:
    """Trains with each of the settings."""
    digits = load_digits()
    data = train_test_split(digits.data / 16, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
    for hidden, lr in itertools.product((16, 64), (0.001, 0.01)):
        train(hidden, lr, *data)


def train(
    hidden: int, lr: float, x_train: np.ndarray, x_test: np.ndarray, y_train: np.ndarray, y_test: np.ndarray
) -> None:
    """One run: loss and weights of every batch, the accuracy of every epoch, the model and its mistakes."""
    model = MLPClassifier((hidden,), learning_rate_init=lr, random_state=0)
    shuffle = np.random.default_rng(0)
    step = 0

    params = {"hidden": hidden, "lr": lr, "epochs": EPOCHS}
    with penstock.start_run(experiment="digits", name=f"mlp-{hidden}", params=params, tags={"data": "digits"}) as run:
        for _ in range(EPOCHS):
            for batch in np.array_split(shuffle.permutation(len(x_train)), BATCHES):
                model.partial_fit(x_train[batch], y_train[batch], classes=range(10))
                step += 1
                first, second = (np.linalg.norm(layer) for layer in model.coefs_)
                run.log({"loss": model.loss_, "weights": {"first": first, "second": second}}, step=step)
            train, test = model.score(x_train, y_train), model.score(x_test, y_test)
            run.log({"accuracy": {"train": train, "test": test}}, step=step)

        with tempfile.TemporaryDirectory() as directory:  # what is logged may go at once
            joblib.dump(model, Path(directory) / "mlp.joblib")
            run.log_artifact(Path(directory) / "mlp.joblib", "model")
        mistakes = confusion_matrix(y_test, model.predict(x_test))
        run.log_table({str(digit): mistakes[:, digit].tolist() for digit in range(10)}, "confusion.json")


if __name__ == "__main__":
    main()
