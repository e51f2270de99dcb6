// The Vercel AI SDK: its provider for OpenAI, whose default is Responses, and the one for everything compatible.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, isStepCount, streamText, tool } from "ai";
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
  variant,
  weather,
  words,
} from "./compat.mjs";

const openai = createOpenAI({ baseURL, apiKey });
const compatible = createOpenAICompatible({ name: "frontdesk", baseURL, apiKey, includeUsage: true });
const chat = variant === "openai" ? openai.chat : compatible.chatModel;

const Weather = z.object({ city: z.string(), degrees: z.number() });
const PARIS = { city: "Paris", degrees: 12 };
const user = (content) => ({ role: "user", content });
const openaiOptions = (options) => ({ providerOptions: { openai: options } });
// A model of this provider reasons if its name says so, or if it is told so.
const reasons = openaiOptions({ forceReasoning: true, reasoningSummary: "auto" });

const runs = (marker) => ({
  tools: {
    get_weather: tool({
      description: "The weather in a city.",
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => weather(city, marker),
    }),
  },
  stopWhen: isStepCount(5),
});

async function all(iterable) {
  const found = [];
  for await (const each of iterable) found.push(each);
  return found;
}

const ask = (of, fields) => generateText({ model: of(model), maxRetries: 0, ...fields });

// What both protocols show in the same way.
const same = (of) => ({
  plain: async (marker) => {
    const { text, finishReason, usage } = await ask(of, { prompt: hello(marker) });
    equal([text, finishReason], [`Hello ${marker}.`, "stop"]);
    isTrue(usage.totalTokens > 0, "no usage");
  },

  stream: async (marker) => {
    const result = streamText({ model: of(model), maxRetries: 0, prompt: words(marker), onError() {} });
    several(await all(result.textStream), WORDS);
    isTrue((await result.usage).totalTokens > 0, "no usage");
  },

  tool: async (marker) => {
    const { text } = await ask(of, { prompt: askWeather(marker, "Paris"), ...runs(marker) });
    equal(text, `Cold ${marker}.`);
  },

  "tool.stream": async (marker) => {
    const prompt = askWeather(marker, ...CITIES);
    const result = streamText({ model: of(model), maxRetries: 0, prompt, onError() {}, ...runs(marker) });
    several(await all(result.textStream), `Cold ${marker}.`);
  },

  error: async (marker) => {
    const failing = generateText({ model: of("nobody"), maxRetries: 0, prompt: marker });
    const error = await thrown(APICallError.isInstance, failing);
    equal([error.statusCode, error.data?.error.code], [404, "model_not_found"]);
  },

  "own-tool": async (marker) => {
    const messages = [user(byItself(marker))];
    const first = await ask(of, { messages, ...runs(marker) });
    equal(first.text, "One.");
    messages.push(...first.responseMessages, user(`${marker}\n@say Two.`));
    equal((await ask(of, { messages, ...runs(marker) })).text, "Two.");
  },

  "error.stream": async (marker) => {
    const found = [];
    const prompt = breaking(marker);
    const result = streamText({ model: of(model), maxRetries: 0, prompt, onError: ({ error }) => found.push(error) });
    for await (const part of result.stream) if (part.type === "error") found.push(part.error);
    isTrue(found.length > 0, "no error");
  },

  image: async (marker) => {
    const picture = { type: "file", mediaType: "image/png", data: PICTURE.split(",")[1] };
    const { text } = await ask(of, { messages: [user([{ type: "text", text: hello(marker) }, picture])] });
    equal(text, `Hello ${marker}.`);
  },

  structured: async (marker) => {
    const { output } = await ask(of, { prompt: asJson(marker), output: Output.object({ schema: Weather }) });
    equal(output, PARIS);
  },
});

const named = (api, cases) => Object.fromEntries(Object.entries(cases).map(([name, run]) => [`${api}.${name}`, run]));

const twoTurns = (of, fields = {}) => async (marker) => {
  const messages = [user(`${marker}\n@think hm\n@say One.`)];
  messages.push(...(await ask(of, { messages, ...fields })).responseMessages, user(`${marker}\n@say Two.`));
  equal((await ask(of, { messages, ...fields })).text, "Two.");
};

const chats = {
  ...named("chat", same(chat)),
  "chat.reasoning": async (marker) => equal((await ask(chat, { prompt: hello(marker) })).reasoningText, "hm"),
  "chat.two-turns": twoTurns(chat),
  "chat.structured.plain": async (marker) => {
    const output = Output.object({ schema: Weather });
    const fields = openaiOptions({ strictJsonSchema: false });
    equal((await ask(chat, { prompt: asJson(marker), output, ...fields })).output, PARIS);
  },
};

const responses = {
  ...named("responses", same(openai)),

  "responses.reasoning": async (marker) =>
    equal((await ask(openai, { prompt: hello(marker), ...reasons })).reasoningText, "hm"),

  "responses.two-turns.previous": async (marker) => {
    const first = await ask(openai, { prompt: `${marker}\n@think hm\n@say One.` });
    const { responseId } = first.providerMetadata.openai;
    const fields = openaiOptions({ previousResponseId: responseId });
    equal((await ask(openai, { prompt: `${marker}\n@say Two.`, ...fields })).text, "Two.");
  },

  // What it does by itself: it sends its own words as references to what it believes to be stored.
  "responses.two-turns.references": twoTurns(openai),
  "responses.tool.references": async (marker) => {
    const { text } = await ask(openai, { prompt: askWeather(marker, "Paris"), ...runs(marker), ...reasons });
    equal(text, `Cold ${marker}.`);
  },
  "responses.two-turns.full-input": twoTurns(openai, openaiOptions({ store: false })),
};

const only = (why, names) => Object.fromEntries(names.map((name) => [name, why]));

await main(
  variant === "openai"
    ? { ...chats, ...only("this provider reads only what OpenAI documents", ["chat.reasoning"]), ...responses }
    : { ...chats, ...only("this provider speaks Chat Completions only", Object.keys(responses)) },
);
