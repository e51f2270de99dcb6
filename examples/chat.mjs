// Talks to an agent: `node examples/chat.mjs [AGENT] [MESSAGE]`. Needs `npm install openai`.
// FRONTDESK_URL and FRONTDESK_API_KEY say where Frontdesk is, and with which key to ask.
import OpenAI from "openai";

const [agent = "Milo", message = "Hello! Who are you?"] = process.argv.slice(2);
const client = new OpenAI({
  baseURL: `${process.env.FRONTDESK_URL ?? "http://127.0.0.1:8000"}/v1`,
  apiKey: process.env.FRONTDESK_API_KEY || "none",
});

const stream = await client.chat.completions.create({
  model: agent,
  messages: [{ role: "user", content: message }],
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? "");
process.stdout.write("\n");
