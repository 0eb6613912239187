"""A loop of PyTorch that logs as it goes, and its model at the end."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.models import infer_signature


def test_a_loop(client: MlflowClient, called: dict[str, Any], name: str) -> None:
    torch.manual_seed(1)
    x = torch.rand(256, 4)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    losses = []
    with mlflow.start_run() as run:
        mlflow.log_params({"lr": 0.05, "epochs": 30})
        for epoch in range(30):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            mlflow.log_metrics({"loss": loss.item(), "lr": optimizer.param_groups[0]["lr"]}, step=epoch)
            if epoch == 15:
                mlflow.pytorch.log_state_dict(net.state_dict(), artifact_path="checkpoint")
        predicted = net(x).detach().numpy()
        mlflow.pytorch.log_model(
            net,
            input_example=x.numpy(),
            signature=infer_signature(x.numpy(), predicted),
            pip_requirements=["torch"],
            registered_model_name=name,
            **called,
        )
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == list(enumerate(losses))
    client.set_registered_model_alias(name, "champion", "1")
    loaded = mlflow.pytorch.load_model(f"models:/{name}@champion")
    assert np.allclose(loaded(x).detach().numpy(), predicted)
    assert np.allclose(mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(x.numpy()), predicted)
    state = mlflow.pytorch.load_state_dict(f"runs:/{run.info.run_id}/checkpoint")
    assert set(state) == set(net.state_dict())
