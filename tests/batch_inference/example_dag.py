"""Price a table of houses with a torch model, in batches, every day."""

from airflow.sdk import dag

from batch_inference.operators import BatchInferenceOperator, ProfileBatchSizeOperator

COMMON = {"model": "example_dag:make_model", "database": "houses"}  # an Airflow connection: AIRFLOW_CONN_HOUSES


def make_model():
    """Price of a house by its area, rooms and age; any `nn.Module` would do."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))


@dag(schedule="@daily")
def price_houses():
    """Find the best batch size on this machine, then score `house` into `house_price`, made if it isn't there."""
    profile = ProfileBatchSizeOperator(task_id="profile_batch_size", input_shape=[3], **COMMON)
    source = "SELECT house_id, area, rooms, age FROM house ORDER BY house_id"
    target = {"table": "house_price", "key_columns": ["house_id"], "output_columns": ["price"]}
    BatchInferenceOperator(task_id="price", source=source, profile=profile.output, **target, **COMMON)


price_houses()
