"""Files that callers send within a request: texts, which any agent can be told, pictures, and all else. Pure.

What a file is, its bytes say: callers name types as they like, and browsers take TypeScript for a video.
"""

import base64
import re
from urllib.parse import unquote

from frontdesk.errors import InvalidRequest
from frontdesk.turn import File, Image

PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
PDF = "application/pdf"
UNKNOWN = "application/octet-stream"
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+-]{0,100}")
NAME_CHARACTERS = 255


def file(data: str, name: str, param: str) -> File | Image:
    """The file in a `data:…;base64,…` URL or in bare base64; a picture as one. Raises InvalidRequest."""
    declared, payload = "", data
    if data[:5].lower() == "data:":
        declared, payload = opened(data, param)
    try:
        content = base64_bytes(payload)
    except ValueError as error:
        raise invalid("The base64 of the file cannot be decoded.", param) from error
    if not content and not declared:
        raise invalid("The file is empty.", param)
    kind = media_type(content, declared, name)
    if kind in PICTURES:
        return Image(url=f"data:{kind};base64,{base64.b64encode(content).decode()}", param=param)
    return File(shown_name(name), kind, content, param)


def opened(url: str, param: str) -> tuple[str, str]:
    """The media type that a data URL tells, and its base64. Raises InvalidRequest."""
    head, comma, payload = url[5:].partition(",")
    declared, *parameters = head.lower().split(";")
    if not comma or not parameters or parameters[-1].strip() != "base64":
        raise invalid("The file's data URL must look like data:text/plain;base64,….", param)
    declared = declared.strip()
    return declared if MEDIA_TYPE.fullmatch(declared) else UNKNOWN, payload


def media_type(content: bytes, declared: str, name: str) -> str:
    """`text/…` for all that is UTF-8 without NUL, unless it is meant to be a picture or a PDF."""
    if content[:1024].lstrip().startswith(b"%PDF-") or declared == PDF or name.lower().endswith(".pdf"):
        return PDF
    if picture := picture_type(content):
        return picture
    if declared in PICTURES:
        return declared
    if is_text(content):
        return declared if declared.startswith("text/") else "text/plain"
    return UNKNOWN if declared.startswith("text/") else declared or UNKNOWN


def is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def picture_type(content: bytes | bytearray) -> str:
    """The media type of a picture that agents can be shown; empty of anything else."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return ""


def base64_bytes(payload: str) -> bytes:
    """As browsers read it: white space, percent signs and missing padding are forgiven. Raises ValueError."""
    if "%" in payload:
        payload = unquote(payload)
    if any(space in payload for space in " \t\r\n"):
        payload = "".join(payload.split())
    return base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)


def shown_name(name: str) -> str:
    """On one line, and not without end."""
    return "".join(each if each.isprintable() else " " for each in name[:NAME_CHARACTERS]).strip()


def invalid(sentence: str, param: str) -> InvalidRequest:
    return InvalidRequest(sentence, param=param, code="invalid_value")
