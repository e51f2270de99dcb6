"""Turns → A2A tasks, and what an agent says → a task's updates. Pure."""

from collections.abc import Iterable
from typing import Any

from a2a.types.a2a_pb2 import (
    Artifact,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from a2a.types.a2a_pb2 import (
    Message as A2AMessage,
)
from google.protobuf.json_format import ParseDict

from frontdesk.conversations.receipts import Receipt, State
from frontdesk.protocols.items import TURN, item_id
from frontdesk.stream import Frames, PartDelta, PartFinished, Reply
from frontdesk.turn import Batch, Message, TurnFinished

TASK = "task_"

STATES: dict[State, TaskState] = {
    "queued": TaskState.TASK_STATE_SUBMITTED,
    "running": TaskState.TASK_STATE_WORKING,
    "completed": TaskState.TASK_STATE_COMPLETED,
    "cancelled": TaskState.TASK_STATE_CANCELED,
    "failed": TaskState.TASK_STATE_FAILED,
}
LIVE = frozenset({TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING})


def states(asked: TaskState) -> frozenset[State] | None:
    """Our states for one of A2A's, some of which ours never have. `None`: all of them."""
    if asked == TaskState.TASK_STATE_UNSPECIFIED:
        return None
    return frozenset(ours for ours, theirs in STATES.items() if theirs == asked)


Update = TaskStatusUpdateEvent | TaskArtifactUpdateEvent


def task_id(turn_id: str) -> str:
    return TASK + turn_id.removeprefix(TURN)


def turn_id(id: str) -> str:
    """The turn of a task. What is no id of ours is given back as it is: nobody has such a turn."""
    return TURN + id.removeprefix(TASK) if id.startswith(TASK) else id


def task(receipt: Receipt) -> Task:
    """A turn that was asked for by A2A, as it stands. The texts of its reply are its artifacts."""
    asked: dict[str, Any] = receipt.body["a2a"]
    context = asked["context"] or receipt.conversation
    shown = Task(id=task_id(receipt.turn_id), context_id=context, status=status(receipt, context))
    message = ParseDict(asked["message"], shown.history.add(), ignore_unknown_fields=True)
    message.task_id, message.context_id = shown.id, context
    for index, part in enumerate(receipt.reply.parts):
        if isinstance(part, Message) and part.text:
            shown.artifacts.append(artifact(receipt.turn_id, index, part.text))
    if end := receipt.reply.end:
        shown.metadata.update(about(end))
    return shown


def status(receipt: Receipt, context: str) -> TaskStatus:
    shown = TaskStatus(state=STATES[receipt.state])
    shown.timestamp.FromMilliseconds(int((receipt.ended or receipt.created) * 1000))
    if receipt.trouble:
        id = f"{task_id(receipt.turn_id)}-trouble"
        told = A2AMessage(message_id=id, role=Role.ROLE_AGENT, parts=[text(receipt.trouble)])
        told.task_id, told.context_id = task_id(receipt.turn_id), context
        told.metadata.update({"code": receipt.code})
        shown.message.CopyFrom(told)
    return shown


def about(end: TurnFinished) -> dict[str, Any]:
    """What is told of a reply beside its text."""
    used = {"input_tokens": end.usage.input_tokens, "output_tokens": end.usage.output_tokens}
    return {"stop_reason": str(end.stop_reason), "usage": used}


def artifact(turn_id: str, index: int, said: str) -> Artifact:
    """A text of a reply, under the id which it has in its conversation too."""
    return Artifact(artifact_id=item_id(Message("assistant", ()), turn_id, "o", index), parts=[text(said)])


def text(said: str) -> Part:
    return Part(text=said, media_type="text/plain")


def ended(task: Task) -> TaskStatusUpdateEvent:
    """That a task has come to its end, and to which."""
    return TaskStatusUpdateEvent(
        task_id=task.id, context_id=task.context_id, status=task.status, metadata=task.metadata
    )


def message(reply: Reply, id: str, context: str) -> A2AMessage:
    """A reply of which there is no task."""
    said = [text(part.text) for part in reply.parts if isinstance(part, Message) and part.text]
    shown = A2AMessage(message_id=id, role=Role.ROLE_AGENT, context_id=context, parts=said or [text("")])
    shown.metadata.update(about(reply.end))
    return shown


class Updates:
    """Turns events into a task's updates. One object per hearing; call it with each batch.

    The first piece of a text puts it in the place of what the client may have of it.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._turn_id = turn_id(task.id)
        self._frames = Frames()
        self._working = task.status.state != TaskState.TASK_STATE_SUBMITTED
        self._begun: set[int] = set()

    def __call__(self, batch: Batch) -> Iterable[Update]:
        if not self._working:
            self._working = True
            shown = TaskStatus(state=TaskState.TASK_STATE_WORKING)
            yield TaskStatusUpdateEvent(task_id=self._task.id, context_id=self._task.context_id, status=shown)
        pieces: dict[int, str] = {}
        done: list[int] = []
        for frame in self._frames(batch):
            match frame:
                case PartDelta(index, Message(), delta):
                    pieces[index] = pieces.get(index, "") + delta
                case PartFinished(index, Message()):
                    done.append(index)
                case _:
                    pass
        for index, piece in pieces.items():
            if piece or index in self._begun:
                yield self._piece(index, piece, last=index in done)
        for index in done:
            if index not in pieces and index in self._begun:
                yield self._piece(index, "", last=True)

    def _piece(self, index: int, piece: str, *, last: bool) -> TaskArtifactUpdateEvent:
        append = index in self._begun
        self._begun.add(index)
        return TaskArtifactUpdateEvent(
            task_id=self._task.id,
            context_id=self._task.context_id,
            artifact=artifact(self._turn_id, index, piece),
            append=append,
            last_chunk=last,
        )
