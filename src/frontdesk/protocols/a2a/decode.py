"""An A2A message → a `Turn`. Pure."""

import base64
import hashlib
import json
from typing import Any, cast

from a2a.types.a2a_pb2 import Message as A2AMessage
from a2a.types.a2a_pb2 import Part, Role
from google.protobuf.json_format import MessageToDict

from frontdesk.errors import InvalidRequest
from frontdesk.policies.files import file
from frontdesk.protocols.requests import checked, is_empty, unsupported
from frontdesk.turn import Content, Image, Message, Principal, Signals, Text, Turn

KEPT_BYTES = 64 * 1024
"""A larger file is not kept with the message: whoever sent it has it."""


def turn(message: A2AMessage, model: str, principal: Principal, turn_id: str, trace: tuple[str, ...] = ()) -> Turn:
    """The turn that a message asks for, of the agent `model`.

    A message that comes again, by its id and all that is in it, is the same. Raises InvalidRequest.
    """
    if message.role != Role.ROLE_USER:
        raise InvalidRequest("Only messages of the role ROLE_USER can be sent.", param="message.role")
    said = tuple(content(part, f"message.parts[{index}]") for index, part in enumerate(message.parts))
    if is_empty(said):
        raise InvalidRequest("The message is empty.", param="message.parts")
    whole = message.SerializeToString(deterministic=True)
    return Turn(
        id=turn_id,
        agent=model,
        input=(Message("user", said),),
        conversation=checked(message.context_id, "message.contextId"),
        receipt={"a2a": {"message": kept(message), "context": message.context_id}},
        background=True,
        signals=Signals(
            digest=hashlib.blake2b(whole, digest_size=16).hexdigest(),
            message=checked(message.message_id, "message.messageId"),
            trace=trace,
        ),
        principal=principal,
    )


def content(part: Part, where: str) -> Content:
    match part.WhichOneof("content"):
        case "text":
            return Text(part.text)
        case "raw":
            if not part.raw:
                raise InvalidRequest("The file is empty.", param=f"{where}.raw")
            encoded = base64.b64encode(part.raw).decode()
            return file(f"data:{part.media_type};base64,{encoded}", part.filename, f"{where}.raw")
        case "url":
            if part.media_type and not part.media_type.lower().startswith("image/"):
                raise unsupported(f"{where}.url", "Files are taken within a message only: send 'raw'.", FOREIGN)
            return Image(url=part.url, param=f"{where}.url")
        case "data":
            return Text(json.dumps(plain(MessageToDict(part.data)), ensure_ascii=False, sort_keys=True))
        case _:
            raise InvalidRequest("A part holds 'text', 'raw', 'url' or 'data'.", param=where)


FOREIGN = "unsupported_content_type"


def plain(value: Any) -> Any:
    """As it was written: the protocol keeps all numbers as floats, and no order of names."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: plain(each) for name, each in cast("dict[str, Any]", value).items()}
        case list():
            return [plain(each) for each in cast("list[Any]", value)]
        case _:
            return value


def kept(message: A2AMessage) -> dict[str, Any]:
    """The message as it is shown with its task later."""
    shown = A2AMessage()
    shown.CopyFrom(message)
    for part in shown.parts:
        if len(part.raw) > KEPT_BYTES:
            part.text = f"[a file: {part.filename}]"
    return MessageToDict(shown)
