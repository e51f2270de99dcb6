"""The ids we hand out: opaque, signed, and without a table behind them, so that they survive a restart.

A conversation id carries the backend's conversation; a tool call id carries it too, so that the results find their way
back without any header. Both are bound to the principal and the agent: another caller's id is as good as none.
Pure but for the secret. A call id has 40 characters, the most that OpenAI's own API takes back.
"""

import base64
import binascii
import hashlib
import hmac
import uuid
from collections.abc import Iterable

CALL = "call_"
CONVERSATION = "conv_"
MAC_BYTES = 10


class Ids:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def conversation(self, thread_id: str, principal: str, agent_id: str) -> str:
        return CONVERSATION + self._pack(thread_id, principal, agent_id)

    def thread(self, conversation_id: str, principal: str, agent_id: str) -> str | None:
        """The thread of a conversation id, or None if it is not ours to give to this caller."""
        thread_id = _thread(conversation_id.removeprefix(CONVERSATION))
        if thread_id is None:
            return None
        genuine = self.conversation(thread_id, principal, agent_id)
        return thread_id if same(genuine, conversation_id) else None

    def call(self, upstream_id: str, thread_id: str, principal: str, agent_id: str) -> str:
        return CALL + self._pack(thread_id, principal, agent_id, upstream_id)

    def call_thread(self, call_id: str) -> str | None:
        """The thread a call id speaks of. Not yet proof: `upstream` gives that."""
        return _thread(call_id.removeprefix(CALL)) if call_id.startswith(CALL) else None

    def upstream(
        self, call_id: str, candidates: Iterable[str], thread_id: str, principal: str, agent_id: str
    ) -> str | None:
        """Which of the backend's call ids this one stands for: the signature is over it."""
        for candidate in candidates:
            if same(self.call(candidate, thread_id, principal, agent_id), call_id):
                return candidate
        return None

    def pin(self, text: str, principal: str, agent_id: str) -> str:
        """The fingerprint of a caller's own name for a conversation."""
        return self._mac("pin", text, principal, agent_id).hex()

    def _pack(self, thread_id: str, *bound: str) -> str:
        packed = uuid.UUID(thread_id).bytes + self._mac(thread_id, *bound)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    def _mac(self, *parts: str) -> bytes:
        message = "\0".join(f"{len(part)}:{part}" for part in parts).encode()
        return hmac.digest(self._secret, message, hashlib.sha256)[:MAC_BYTES]


def same(genuine: str, given: str) -> bool:
    """In constant time. What a caller gives may be any text, of which `compare_digest` takes only the ASCII."""
    return hmac.compare_digest(genuine.encode(), given.encode("utf-8", "surrogatepass"))


def _thread(packed: str) -> str | None:
    try:
        data = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
    except (ValueError, binascii.Error):
        return None
    return str(uuid.UUID(bytes=data[:16])) if len(data) == 16 + MAC_BYTES else None


def fingerprint(text: str) -> str:
    """Tells whether instructions are new."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16] if text else ""
