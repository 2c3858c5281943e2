"""SageMaker's SDK (``pip install "sagemaker>=3,<4"``), unmodified, with the emulator or with AWS.

    cloudtune emulate --engine train > env.sh &
    . ./env.sh
    python model_trainer.py BUCKET ROLE_ARN [JUMPSTART_MODEL]

Nothing below knows of cloudtune: ``AWS_ENDPOINT_URL`` alone decides who answers. With a model's id the job is filled
from the hub's document of that model; without one a small program of our own is shipped, run in the container contract
and its model brought to S3.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.jumpstart import JumpStartConfig
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig, SourceCode, StoppingCondition

PROGRAM = """
import os, pathlib
print("'loss': 0.5", flush=True)
rows = list(pathlib.Path(os.environ["SM_CHANNEL_TRAINING"]).iterdir())
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(f"{len(rows)} files")
"""
ROW = b'{"dialog": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}\n'


def own_program(session: Session, bucket: str, role: str) -> ModelTrainer:
    code = Path(tempfile.mkdtemp())
    (code / "train.py").write_text(PROGRAM, encoding="utf-8")
    return ModelTrainer(
        sagemaker_session=session,
        role=role,
        training_image="123456789012.dkr.ecr.us-east-1.amazonaws.com/an-image:1",
        base_job_name="sdk",
        source_code=SourceCode(source_dir=str(code), entry_script="train.py"),
        compute=Compute(instance_type="ml.m5.xlarge", instance_count=1, volume_size_in_gb=5),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=600),
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/sdk-output"),
    )


def hub_model(session: Session, model: str, role: str) -> ModelTrainer:
    return ModelTrainer.from_jumpstart_config(
        JumpStartConfig(model_id=model, accept_eula=True),
        sagemaker_session=session,
        role=role,
        base_job_name="sdk-hub",
        hyperparameters={"epoch": 1, "chat_dataset": "True", "instruction_tuned": "False"},
    )


def main() -> None:
    bucket, role, *model = sys.argv[1:]
    boto3.client("s3").put_object(Bucket=bucket, Key="sdk/rows.jsonl", Body=ROW * 12)
    session = Session(boto_session=boto3.Session(), default_bucket=bucket)
    trainer = hub_model(session, model[0], role) if model else own_program(session, bucket, role)
    rows = InputData(channel_name="training", data_source=f"s3://{bucket}/sdk/")
    trainer.train(input_data_config=[rows], wait=True, logs=True)
    job = trainer._latest_training_job
    job.refresh()
    print(job.training_job_status, job.model_artifacts.s3_model_artifacts)


if __name__ == "__main__":
    main()
