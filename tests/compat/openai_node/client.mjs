// OpenAI's client for Node.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import {
  CITIES,
  PICTURE,
  WORDS,
  apiKey,
  asJson,
  askWeather,
  baseURL,
  breaking,
  byItself,
  equal,
  hello,
  isTrue,
  main,
  model,
  several,
  thrown,
  weather,
  words,
} from "./compat.mjs";

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const chat = client.chat.completions;
const { responses, conversations } = client;

const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tool = { name: "get_weather", description: "The weather in a city.", parameters };
const chatTools = [{ type: "function", function: tool }];
const tools = [{ type: "function", ...tool, strict: false }];
const Weather = z.object({ city: z.string(), degrees: z.number() });
const PARIS = { city: "Paris", degrees: 12 };

const user = (content) => ({ role: "user", content });
const notFound = (error) => error instanceof OpenAI.NotFoundError;

async function all(iterable) {
  const found = [];
  for await (const each of await iterable) found.push(each);
  return found;
}

function runnable(marker) {
  const run = ({ city }) => weather(city, marker);
  return [{ type: "function", function: { ...tool, parse: JSON.parse, function: run } }];
}

function results(reply, marker) {
  const calls = reply.output.filter((item) => item.type === "function_call");
  isTrue(calls.length, `no call in ${JSON.stringify(reply.output)}`);
  return calls.map(({ call_id, arguments: json }) => ({
    type: "function_call_output",
    call_id,
    output: weather(JSON.parse(json).city, marker),
  }));
}

const deltas = (events) => events.filter(({ type }) => type === "response.output_text.delta").map(({ delta }) => delta);

await main({
  "chat.plain": async (marker) => {
    const reply = await chat.create({ model, messages: [user(hello(marker))] });
    equal([reply.choices[0].message.content, reply.choices[0].finish_reason], [`Hello ${marker}.`, "stop"]);
    isTrue(reply.usage.total_tokens > 0, "no usage");
  },

  "chat.stream": async (marker) => {
    const messages = [user(words(marker))];
    const chunks = await all(chat.create({ model, messages, stream: true, stream_options: { include_usage: true } }));
    several(chunks.map((chunk) => chunk.choices[0]?.delta.content).filter(Boolean), WORDS);
    isTrue(chunks.at(-1).usage.total_tokens > 0, "no usage in the last chunk");
  },

  "chat.reasoning": async (marker) => {
    const reply = await chat.create({ model, messages: [user(hello(marker))] });
    equal(reply.choices[0].message.reasoning_content, "hm");
  },

  "chat.tool": async (marker) => {
    const messages = [user(askWeather(marker, "Paris"))];
    equal(await chat.runTools({ model, messages, tools: runnable(marker) }).finalContent(), `Cold ${marker}.`);
  },

  "chat.tool.stream": async (marker) => {
    const messages = [user(askWeather(marker, ...CITIES))];
    const runner = chat.runTools({ model, messages, tools: runnable(marker), stream: true });
    equal(await runner.finalContent(), `Cold ${marker}.`);
  },

  "chat.two-turns": async (marker) => {
    const messages = [user(`${marker}\n@think hm\n@say One.`)];
    messages.push((await chat.create({ model, messages })).choices[0].message, user(`${marker}\n@say Two.`));
    equal((await chat.create({ model, messages })).choices[0].message.content, "Two.");
  },

  "chat.error": async (marker) => {
    const error = await thrown(notFound, chat.create({ model: "nobody", messages: [user(marker)] }));
    equal(error.code, "model_not_found");
  },

  "chat.own-tool": async (marker) => {
    const messages = [user(byItself(marker))];
    const { message } = (await chat.create({ model, messages, tools: chatTools })).choices[0];
    equal([message.content, message.tool_calls ?? null], ["One.", null]);
    messages.push(message, user(`${marker}\n@say Two.`));
    equal((await chat.create({ model, messages })).choices[0].message.content, "Two.");
  },

  "chat.error.stream": async (marker) => {
    const stream = await chat.create({ model, messages: [user(breaking(marker))], stream: true });
    await thrown((error) => error instanceof OpenAI.APIError, all(stream));
  },

  "chat.image": async (marker) => {
    const parts = [
      { type: "text", text: hello(marker) },
      { type: "image_url", image_url: { url: PICTURE } },
    ];
    const reply = await chat.create({ model, messages: [user(parts)] });
    equal(reply.choices[0].message.content, `Hello ${marker}.`);
  },

  "chat.structured": async (marker) => {
    const response_format = zodResponseFormat(Weather, "weather");
    const reply = await chat.parse({ model, messages: [user(asJson(marker))], response_format });
    equal(reply.choices[0].message.parsed, PARIS);
  },

  "chat.structured.plain": async (marker) => {
    const response_format = { type: "json_schema", json_schema: { name: "weather", schema: z.toJSONSchema(Weather) } };
    const reply = await chat.create({ model, messages: [user(asJson(marker))], response_format });
    equal(JSON.parse(reply.choices[0].message.content), PARIS);
  },

  "responses.plain": async (marker) => {
    const reply = await responses.create({ model, input: hello(marker) });
    equal([reply.output_text, reply.status, reply.error], [`Hello ${marker}.`, "completed", null]);
    isTrue(reply.usage.total_tokens > 0, "no usage");
  },

  "responses.stream": async (marker) => {
    const stream = responses.stream({ model, input: words(marker) });
    const events = await all(stream);
    const final = await stream.finalResponse();
    several(deltas(events), WORDS);
    equal(final.output_text, WORDS);
    isTrue(final.usage.total_tokens > 0, "no usage");
  },

  "responses.reasoning": async (marker) => {
    const reply = await responses.create({ model, input: hello(marker), reasoning: { summary: "auto" } });
    const thoughts = reply.output.filter((item) => item.type === "reasoning").flatMap((item) => item.summary);
    equal(thoughts.map(({ text }) => text), ["hm"]);
  },

  "responses.tool": async (marker) => {
    const first = await responses.create({ model, input: askWeather(marker, "Paris"), tools });
    const then = await responses.create({ model, input: results(first, marker), previous_response_id: first.id, tools });
    equal(then.output_text, `Cold ${marker}.`);
  },

  "responses.tool.stream": async (marker) => {
    const first = await responses.stream({ model, input: askWeather(marker, ...CITIES), tools }).finalResponse();
    const input = results(first, marker);
    const then = await responses.stream({ model, input, previous_response_id: first.id, tools }).finalResponse();
    equal(then.output_text, `Cold ${marker}.`);
  },

  "responses.tool.full-input": async (marker) => {
    const input = [user(askWeather(marker, "Paris"))];
    const first = await responses.create({ model, input, tools, store: false });
    input.push(...first.output, ...results(first, marker));
    equal((await responses.create({ model, input, tools, store: false })).output_text, `Cold ${marker}.`);
  },

  "responses.two-turns.previous": async (marker) => {
    const first = await responses.create({ model, input: `${marker}\n@think hm\n@say One.` });
    const then = await responses.create({ model, input: `${marker}\n@say Two.`, previous_response_id: first.id });
    equal([then.output_text, then.previous_response_id], ["Two.", first.id]);
  },

  "responses.two-turns.full-input": async (marker) => {
    const input = [user(`${marker}\n@think hm\n@say One.`)];
    input.push(...(await responses.create({ model, input })).output, user(`${marker}\n@say Two.`));
    equal((await responses.create({ model, input })).output_text, "Two.");
  },

  "responses.two-turns.conversation": async (marker) => {
    const { id: conversation } = await conversations.create({});
    for (const number of ["One", "Two"]) {
      const reply = await responses.create({ model, input: `${marker}\n@think hm\n@say ${number}.`, conversation });
      equal(reply.output_text, `${number}.`);
    }
    const items = await all(conversations.items.list(conversation, { order: "asc" }));
    const roles = items.filter(({ type }) => type === "message").map(({ role }) => role);
    equal(roles, ["user", "assistant", "user", "assistant"]);
  },

  "responses.error": async (marker) => {
    const error = await thrown(notFound, responses.create({ model: "nobody", input: marker }));
    equal(error.code, "model_not_found");
  },

  "responses.own-tool": async (marker) => {
    const input = [user(byItself(marker))];
    const first = await responses.create({ model, input, tools });
    equal([first.output_text, first.output.filter(({ type }) => type === "function_call")], ["One.", []]);
    input.push(...first.output, user(`${marker}\n@say Two.`));
    equal((await responses.create({ model, input })).output_text, "Two.");
  },

  // The stream ends with `response.failed`, or the client throws.
  "responses.error.stream": async (marker) => {
    const stream = await responses.create({ model, input: breaking(marker), stream: true });
    let events;
    try {
      events = await all(stream);
    } catch (error) {
      isTrue(error instanceof OpenAI.APIError, `another error: ${error}`);
      return;
    }
    equal(events.at(-1).type, "response.failed");
    isTrue(events.at(-1).response.error, "it does not say what failed");
  },

  "responses.image": async (marker) => {
    const parts = [
      { type: "input_text", text: hello(marker) },
      { type: "input_image", image_url: PICTURE, detail: "auto" },
    ];
    equal((await responses.create({ model, input: [user(parts)] })).output_text, `Hello ${marker}.`);
  },

  "responses.structured": async (marker) => {
    const format = zodTextFormat(Weather, "weather");
    const reply = await responses.parse({ model, input: asJson(marker), text: { format } });
    equal(reply.output_parsed, PARIS);
  },

  "responses.stored": async (marker) => {
    const reply = await responses.create({ model, input: hello(marker) });
    const again = await responses.retrieve(reply.id);
    equal([again.id, again.output_text], [reply.id, reply.output_text]);
    const items = await all(responses.inputItems.list(reply.id));
    isTrue(JSON.stringify(items).includes(marker), `the input is not in ${JSON.stringify(items)}`);
    await responses.delete(reply.id);
    await thrown(notFound, responses.retrieve(reply.id));
  },

  "responses.background": async (marker) => {
    const started = await responses.create({ model, input: words(marker), background: true });
    isTrue(["queued", "in_progress"].includes(started.status), `begins as ${started.status}`);
    const events = await all(responses.retrieve(started.id, { stream: true }));
    equal(events.at(-1).type, "response.completed");
    equal((await responses.retrieve(started.id)).output_text, WORDS);
    const middle = events[Math.floor(events.length / 2)].sequence_number;
    const resumed = await all(responses.retrieve(started.id, { stream: true, starting_after: middle }));
    const rest = events.map((event) => event.sequence_number).filter((number) => number > middle);
    equal(resumed.map((event) => event.sequence_number), rest);
  },

  // The helper takes a stream up again by its id, and gathers the whole of it.
  "responses.background.stream": async (marker) => {
    const begun = await responses.create({ model, input: words(marker), background: true, stream: true });
    let id = "";
    for await (const event of begun) {
      id = event.response?.id ?? id;
      if (event.type === "response.output_text.delta") break;
    }
    const stream = responses.stream({ response_id: id });
    several(deltas(await all(stream)), WORDS);
    equal((await stream.finalResponse()).output_text, WORDS);
  },
});
