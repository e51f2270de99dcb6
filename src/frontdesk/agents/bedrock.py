"""AWS's own client for Bedrock's models."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from botocore.tokens import FrozenAuthToken

from frontdesk.agents.errors import AgentError
from frontdesk.agents.providers import Access, Limits

CONNECT_SECONDS = 5.0
CONNECTIONS = 100  # instead of ten


class Bearer(Session):
    """Asks with this key, and looks for no other credentials."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def get_auth_token(self, **_: Any) -> FrozenAuthToken:
        return FrozenAuthToken(self._key)

    def get_credentials(self) -> None:
        return None


def client(access: Access, limits: Limits) -> Any:
    """With our limits; left alone, it tries five times. Raises AgentError without credentials, or a region."""
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": limits.silence_seconds,
        "retries": {"mode": "standard", "total_max_attempts": 1 + limits.retries},
        "max_pool_connections": CONNECTIONS,
        "signature_version": "bearer" if access.api_key else None,
    }
    if access.api_key and access.base_url.startswith("http:"):
        raise AgentError("A key for 'bedrock' is sent by https alone: mend its base_url.")
    inner = Bearer(access.api_key) if access.api_key else Session()
    try:
        session = boto3.Session(botocore_session=inner, region_name=access.region or None)
        if not access.api_key and session.get_credentials() is None:
            raise AgentError(
                "Models of 'bedrock' need AWS credentials: set AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY, or api_key under [providers.bedrock] in frontdesk.toml."
            )
        return session.client("bedrock-runtime", config=Config(**options), endpoint_url=access.base_url or None)
    except BotoCoreError as error:
        raise AgentError(
            f"Models of 'bedrock' cannot be reached. {error} The region is AWS_DEFAULT_REGION, or region under"
            " [providers.bedrock] in frontdesk.toml."
        ) from error
