// Codex, as `codex exec`: a coding agent that sends everything again with each request, and runs a shell.
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import { PICTURE, apiKey, baseURL, breaking, byItself, equal, hello, isTrue, main, model } from "./compat.mjs";

const codex = join(dirname(createRequire(import.meta.url).resolve("@openai/codex/package.json")), "bin", "codex.js");
const config = (wanted) => `
model = ${JSON.stringify(wanted)}
model_provider = "frontdesk"
check_for_update_on_startup = false
analytics.enabled = false
[model_providers.frontdesk]
name = "Frontdesk"
base_url = ${JSON.stringify(baseURL)}
env_key = "FRONTDESK_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
`;

/** A home and a folder to work in, of this case alone. */
async function place(wanted = model) {
  const home = await mkdtemp(join(tmpdir(), "frontdesk-codex-"));
  await mkdir(join(home, "work"));
  await writeFile(join(home, "config.toml"), config(wanted));
  return home;
}

/** What one run says at its end, and the items it shows on the way. */
function run(home, ...rest) {
  const sandbox = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"];
  const env = { PATH: process.env.PATH, HOME: home, CODEX_HOME: home, FRONTDESK_KEY: apiKey };
  return new Promise((resolve, reject) => {
    const options = { cwd: join(home, "work"), env, timeout: 50_000 };
    const child = execFile(process.execPath, [codex, "exec", ...sandbox, ...rest], options, (error, output, errors) => {
      const events = output.split("\n").filter(Boolean).map((line) => JSON.parse(line));
      const items = events.filter(({ type }) => type === "item.completed").map(({ item }) => item);
      const said = items.filter(({ type }) => type === "agent_message").map(({ text }) => text);
      const failed = events.find(({ type }) => type === "turn.failed")?.error.message;
      if (error && !failed) reject(new Error(`${error.message} ${errors} ${output}`));
      else resolve({ said, items, failed, usage: events.find(({ type }) => type === "turn.completed")?.usage });
    });
    child.stdin.end();
  });
}

const library = "Codex is no library: it streams, and runs its own tools";

await main({
  ...Object.fromEntries(
    ["plain", "stream", "reasoning", "tool", "tool.stream", "two-turns", "own-tool", "error", "error.stream", "image", "structured"]
      .concat("structured.plain")
      .map((name) => [`chat.${name}`, "Codex speaks Responses only"]),
  ),

  "responses.plain": library,
  "responses.stream": async (marker) => {
    const { said, usage } = await run(await place(), hello(marker));
    equal(said, [`Hello ${marker}.`]);
    isTrue(usage.input_tokens > 0, "no usage");
  },

  "responses.reasoning": async (marker) => {
    const { items } = await run(await place(), hello(marker));
    equal(items.filter(({ type }) => type === "reasoning").map(({ text }) => text), ["hm"]);
  },

  "responses.tool": library,
  "responses.tool.stream": library,
  "responses.tool.shell": async (marker) => {
    const call = `@call exec_command {"cmd": "echo shell-$((6*7))-${marker.slice(1)}"}`;
    const { said, items } = await run(await place(), `${marker}\n@think hm\n${call}\n@then\n@say Done ${marker}.`);
    equal(said, [`Done ${marker}.`]);
    equal(items.filter(({ type }) => type === "command_execution").map(({ exit_code }) => exit_code), [0]);
  },

  "responses.two-turns.previous": "Codex sends everything again",
  "responses.two-turns.full-input": async (marker) => {
    const home = await place();
    equal((await run(home, `${marker}\n@think hm\n@say One.`)).said, ["One."]);
    equal((await run(home, "resume", "--last", `${marker}\n@say Two.`)).said, ["Two."]);
  },

  "responses.error": async (marker) => {
    const { failed } = await run(await place("nobody"), marker);
    isTrue(failed?.includes("nobody"), `it says ${failed}`);
  },

  "responses.error.stream": async (marker) => {
    const { failed } = await run(await place(), breaking(marker));
    isTrue(failed, "no failure");
  },

  "responses.own-tool": async (marker) => {
    const home = await place();
    equal((await run(home, byItself(marker))).said, ["One."]);
    equal((await run(home, "resume", "--last", `${marker}\n@say Two.`)).said, ["Two."]);
  },

  "responses.image": async (marker) => {
    const home = await place();
    await writeFile(join(home, "work", "x.png"), Buffer.from(PICTURE.split(",")[1], "base64"));
    equal((await run(home, hello(marker), "--image", "x.png")).said, [`Hello ${marker}.`]);
  },

  "responses.structured": async (marker) => {
    const home = await place();
    const properties = { city: { type: "string" }, degrees: { type: "number" } };
    const schema = { type: "object", properties, required: ["city", "degrees"], additionalProperties: false };
    await writeFile(join(home, "work", "schema.json"), JSON.stringify(schema));
    const asked = `${marker}\n@say {"city": "Paris", "degrees": 12}`;
    const { said, failed } = await run(home, asked, "--output-schema", "schema.json");
    isTrue(!failed, failed);
    equal(said.map(JSON.parse), [{ city: "Paris", degrees: 12 }]);
  },
});
