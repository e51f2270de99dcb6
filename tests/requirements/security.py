"""Who gets in, and where."""

from tests.requirements import Requirement

OPENAI = "https://platform.openai.com/docs/api-reference/authentication"
OWASP = "https://owasp.org/API-Security/editions/2023/en/0x11-t10/"
HTTP = "https://www.rfc-editor.org/rfc/rfc9112"

REQUIREMENTS = {
    "security.keys": Requirement(
        "Keys come as `Authorization: Bearer`, `x-api-key` or `api-key`, never in the address; else 401 with "
        "`www-authenticate`",
        OPENAI,
    ),
    "security.open-paths": Requirement("Without a key only `/health/live` and `/health/ready` answer", OWASP),
    "security.loopback": Requirement("Beyond loopback the server does not start without keys", OWASP),
    "security.agents-per-key": Requirement(
        "A key sees and uses its agents only: in the list, by name and id, and in a chat", OWASP
    ),
    "security.private-conversations": Requirement("Pins and conversation ids of one key are nothing to another", OWASP),
    "security.ids.round-trip": Requirement(
        "Ids find their conversation and call without a table behind them", "Frontdesk"
    ),
    "security.ids.private": Requirement("An id is good for its caller and its agent only", OWASP),
    "security.ids.tampering": Requirement("An id that was changed, or that is not ours, is none", OWASP),
    "security.rate": Requirement(
        "A key's rate is counted and told in `x-ratelimit-*`; beyond it 429 with `retry-after`",
        "https://platform.openai.com/docs/guides/rate-limits",
    ),
    "security.turns-per-key": Requirement("A key has a bound of turns at the same time", OWASP),
    "security.body-limit": Requirement("A body that is too large is 413 before all of it has been read", OWASP),
    "security.head-limit": Requirement("A request's head has a bound, also before there is a key", HTTP),
    "security.odd-bodies": Requirement("Broken JSON, bad UTF-8, half characters, NULs and depth are a 400", OWASP),
    "security.odd-headers": Requirement("Header values may be any bytes; none comes back that could do harm", OWASP),
    "security.odd-http": Requirement(
        "What two parsers could read differently is refused, as JSON, and the connection is closed", HTTP
    ),
    "security.cors": Requirement(
        "CORS is off until origins are set; then preflights, errors and our headers can be read by a page",
        "https://fetch.spec.whatwg.org/#http-cors-protocol",
    ),
    "security.no-secrets": Requirement("No key is seen in an error, a log line or a metric", OWASP),
    "security.log-injection": Requirement(
        "No request can forge a log line", "https://owasp.org/www-community/attacks/Log_Injection"
    ),
}
