"""SimulatePrincipalPolicy, which moto lacks. The emulator allows every action to every role.

Shape: docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html (botocore 1.44.5, service model).
SageMaker's own SDK calls it before it creates a job (sagemaker-core 2.27.0, ``iam_role_resolver.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from cloudtune_emulator.http import Reply

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call

SIMULATE = "iam.SimulatePrincipalPolicy"
_NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"


def simulate(context: EmulatorContext, call: Call) -> Reply:
    """SimulatePrincipalPolicy."""
    assert call.raw is not None
    given = parse_qs(call.raw.again()["wsgi.input"].read().decode())
    actions = [values[0] for key, values in sorted(given.items()) if key.startswith("ActionNames.member.")]
    text = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName><EvalResourceName>*</EvalResourceName>"
        "<EvalDecision>allowed</EvalDecision><MatchedStatements/><MissingContextValues/></member>"
        for action in actions
    )
    body = (
        f'<SimulatePrincipalPolicyResponse xmlns="{_NAMESPACE}"><SimulatePrincipalPolicyResult>'
        f"<IsTruncated>false</IsTruncated><EvaluationResults>{text}</EvaluationResults>"
        "</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
    )
    return Reply(body=body.encode(), content_type="text/xml")
