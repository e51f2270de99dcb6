"""The ids we hand out: opaque and signed.

A conversation's id carries it, and so does the id of a tool call, so that results find their way back without any
header. Both are bound to the principal and the agent: another caller's id is as good as none.
Pure but for the secret. A call id has 40 characters, the most that OpenAI's own API takes back.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

CALL = "call_"
CONVERSATION = "conv_"
ID_BYTES = 16
MAC_BYTES = 10


class Ids:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def conversation(self, conversation_id: str, principal: str, agent_id: str) -> str:
        """The public id of a conversation, whose own has 32 hexadecimal digits."""
        return CONVERSATION + self._pack(conversation_id, principal, agent_id)

    def conversation_of(self, public_id: str, principal: str, agent_id: str) -> str | None:
        """The conversation of a public id, or None if it is not ours to give to this caller."""
        conversation_id = self.conversation_meant(public_id)
        if conversation_id is None:
            return None
        return conversation_id if same(self.conversation(conversation_id, principal, agent_id), public_id) else None

    def conversation_meant(self, public_id: str) -> str | None:
        """The conversation a public id speaks of. Not yet proof: `conversation_of` gives that."""
        return _packed(public_id.removeprefix(CONVERSATION))

    def call(self, upstream_id: str, conversation_id: str, principal: str, agent_id: str) -> str:
        return CALL + self._pack(conversation_id, principal, agent_id, upstream_id)

    def conversation_of_call(self, call_id: str) -> str | None:
        """The conversation a call id speaks of. Not yet proof: `upstream` gives that."""
        return _packed(call_id.removeprefix(CALL)) if call_id.startswith(CALL) else None

    def upstream(
        self, call_id: str, candidates: Iterable[str], conversation_id: str, principal: str, agent_id: str
    ) -> str | None:
        """Which of the backend's call ids this one stands for: the signature is over it."""
        for candidate in candidates:
            if same(self.call(candidate, conversation_id, principal, agent_id), call_id):
                return candidate
        return None

    def mark(self, backend: str, agent_id: str) -> str:
        """What stands for an agent in the trace of a question that goes from desk to desk. It tells nobody else who
        that is."""
        return self._mac("trace", backend, agent_id).hex()

    def _pack(self, conversation_id: str, *bound: str) -> str:
        packed = bytes.fromhex(conversation_id) + self._mac(conversation_id, *bound)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    def _mac(self, *parts: str) -> bytes:
        message = "\0".join(f"{len(part)}:{part}" for part in parts).encode()
        return hmac.digest(self._secret, message, hashlib.sha256)[:MAC_BYTES]


def same(genuine: str, given: str) -> bool:
    """In constant time. What a caller gives may be any text, of which `compare_digest` takes only the ASCII."""
    return hmac.compare_digest(genuine.encode(), given.encode("utf-8", "surrogatepass"))


def _packed(text: str) -> str | None:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return None
    return data[:ID_BYTES].hex() if len(data) == ID_BYTES + MAC_BYTES else None


def fingerprint(text: str) -> str:
    """Tells whether instructions are new."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16] if text else ""
