"""A minimal program: train a spec on this machine, watch the loss, and generate text with the result."""

import sys

import cloudtune

job = cloudtune.connect("local").submit(cloudtune.load_spec(sys.argv[1]))
print(job.ref)
for update in job.watch():
    for metric in update.metrics:
        if metric.step % 10 == 0:
            print(f"{metric.split:10} step {metric.step}  loss {metric.values['loss']:.2f}")
for answer in job.generate(sys.argv[2:]):
    print(answer.text)
