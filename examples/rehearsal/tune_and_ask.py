"""A script for OpenAI's service. It does not use cloudtune or know about the emulator."""

import sys
import time

from openai import OpenAI

rows, question = sys.argv[1:3]
client = OpenAI()
with open(rows, "rb") as content:
    file = client.files.create(file=content, purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    model="gpt-4.1-mini-2025-04-14",
    training_file=file.id,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 4}}},
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(1)
    job = client.fine_tuning.jobs.retrieve(job.id)
events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
print(f"{job.status}: {events[0].message}, {len(events)} events")
for event in [event for event in reversed(events) if event.type == "metrics"][::40]:
    print(event.message)
answer = client.chat.completions.create(
    model=job.fine_tuned_model, messages=[{"role": "user", "content": question}], temperature=0
)
print(f"{question} {answer.choices[0].message.content}")
client.models.delete(job.fine_tuned_model)
client.files.delete(file.id)
