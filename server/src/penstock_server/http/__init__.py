"""The HTTP door. starlette and uvicorn are known here and nowhere else."""
