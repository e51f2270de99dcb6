// One scenario with the official client for Node; prints what came of it as JSON. Run by test_node.py.
// node chat.mjs <folder with node_modules> <base URL> <model> <scenario> [marker]
import { createRequire } from "node:module";

const [folder, baseURL, model, scenario, marker] = process.argv.slice(2);
const OpenAI = createRequire(`${folder}/`)("openai");
const client = new OpenAI({ apiKey: "none", baseURL, maxRetries: 0 });

const tool = (name) => ({
  type: "function",
  function: { name, parameters: { type: "object", properties: { city: { type: "string" } } } },
});
const tools = [tool("get_weather"), tool("get_time")];
const user = (content) => ({ role: "user", content });
const create = (fields) => client.chat.completions.create({ model, ...fields });
const two = '@think hm\n@say Look:\n@call get_weather {"city": "Oslo"}\n@call get_time {"city": "Rome"}';

async function failure(promise) {
  try {
    return { reply: await promise };
  } catch (error) {
    return {
      class: error.constructor.name,
      status: error.status ?? null,
      code: error.code ?? null,
      param: error.param ?? null,
      requestID: error.requestID ?? null,
    };
  }
}

const scenarios = {
  async list() {
    const ids = [];
    for await (const each of client.models.list()) ids.push(each.id);
    return { ids, one: (await client.models.retrieve(model)).id };
  },

  async plain() {
    const { data, response } = await create({ messages: [user("@think hm\n@say Hello.")] }).withResponse();
    return {
      message: data.choices[0].message,
      finish: data.choices[0].finish_reason,
      requestID: data._request_id === response.headers.get("x-request-id"),
    };
  },

  async stream() {
    const stream = await create({
      messages: [user("@think hm\n@table")],
      stream: true,
      stream_options: { include_usage: true },
    });
    const found = { text: "", thought: "", finish: [], usage: null, chunks: 0 };
    for await (const chunk of stream) {
      found.chunks += 1;
      found.usage = chunk.usage ?? found.usage;
      for (const { delta, finish_reason } of chunk.choices) {
        found.text += delta.content ?? "";
        found.thought += delta.reasoning_content ?? "";
        if (finish_reason) found.finish.push(finish_reason);
      }
    }
    return found;
  },

  // The helper throws when a call changes its name or id, or when the stream ends without a finish.
  async helper() {
    const stream = client.chat.completions.stream({ model, messages: [user(two)], tools });
    const events = [];
    stream.on("tool_calls.function.arguments.done", (event) => events.push([event.index, event.name, event.arguments]));
    const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
    return { text: message.content, calls: message.tool_calls.map((call) => call.function), finish: finish_reason, events };
  },

  async roundTrip() {
    const messages = [user(`${two}\n@then\n@say Both ${marker}.`)];
    const { message } = (await create({ messages, tools })).choices[0];
    messages.push(message);
    for (const call of message.tool_calls) {
      messages.push({ role: "tool", tool_call_id: call.id, content: `${call.function.name} ${marker}` });
    }
    const stream = client.chat.completions.stream({ model, messages, tools });
    return { text: await stream.finalContent() };
  },

  async runTools() {
    const ran = [];
    const runnable = tools.map(({ type, function: definition }) => ({
      type,
      function: {
        ...definition,
        parse: JSON.parse,
        function: (values) => {
          ran.push([definition.name, values.city]);
          return `${definition.name} ${marker}`;
        },
      },
    }));
    const messages = [user(`${two}\n@then\n@say Both ${marker}.`)];
    const found = {};
    for (const stream of [true, false]) {
      const runner = client.chat.completions.runTools({ model, messages: [...messages], tools: runnable, stream });
      found[stream ? "streamed" : "plain"] = await runner.finalContent();
    }
    return { ...found, ran };
  },

  async errors() {
    const hello = [user("@say Hello.")];
    return {
      notFound: await failure(client.chat.completions.create({ model: "nobody", messages: hello })),
      badRequest: await failure(create({ messages: hello, n: 2 })),
      provider: await failure(create({ messages: [user("@fail 429 should-retry=false")] })),
      midStream: await failure(
        (async () => {
          const stream = await create({ messages: [user("@say Hello.\n@error")], stream: true });
          for await (const chunk of stream) void chunk;
        })(),
      ),
    };
  },

  async abort() {
    // One conversation: the second message gets through because the first answer is not waited for any more.
    const pinned = { headers: { "x-frontdesk-conversation": marker } };
    const ask = (fields) => client.chat.completions.create({ model, ...fields }, pinned);
    const stream = await ask({ messages: [user(`@say Hello ${marker}\n@pace 0.05\n@long 600`)], stream: true });
    let text = "";
    for await (const chunk of stream) {
      text += chunk.choices[0].delta.content ?? "";
      if (text.includes(marker)) stream.controller.abort();
    }
    return { heard: text.includes(`Hello ${marker}`), then: (await ask({ messages: [user("@say Still here.")] })).choices[0].message.content };
  },

  // The first try times out; the second, which the client makes by itself, hears the answer.
  async retried() {
    const impatient = new OpenAI({ apiKey: "none", baseURL, maxRetries: 1, timeout: 3000 });
    const messages = [user(`@slow 4\n@say Late ${marker}`)];
    const { data, response } = await impatient.chat.completions.create({ model, messages }).withResponse();
    messages.push(data.choices[0].message, user(`@say Next ${marker}`));
    return {
      late: data.choices[0].message.content,
      replayed: response.headers.get("idempotency-replayed"),
      next: (await create({ messages })).choices[0].message.content,
    };
  },
};

process.stdout.write(JSON.stringify(await scenarios[scenario]()));
