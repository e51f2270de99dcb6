// What the Node clients' scripts share: cases are run one after the other, and each leaves a line of JSON.
import { randomUUID } from "node:crypto";

export const {
  COMPAT_BASE_URL: baseURL,
  COMPAT_API_KEY: apiKey,
  COMPAT_MODEL: model,
  COMPAT_APIS: apis,
  COMPAT_ONLY: only,
  COMPAT_VARIANT: variant,
} = process.env;

export const PICTURE =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const CITIES = ["Paris", "Rome"];

/** Run the cases: a function that is given a marker and throws when something is wrong, or why there is none. */
export async function main(cases) {
  for (const [name, found] of Object.entries(cases)) {
    if (!name.startsWith(only)) continue;
    const marker = `#${randomUUID().replaceAll("-", "").slice(0, 12)}`;
    if (typeof found === "string") {
      report(name, "", "not applicable", found);
    } else if (!apis.split(",").includes(name.split(".")[0])) {
      report(name, "", "not there yet", "");
    } else {
      try {
        await inTime(found(marker));
        report(name, marker, "passed", "");
      } catch (error) {
        console.error(error);
        report(name, marker, "failed", `${error?.name}: ${error?.message}`.slice(0, 1500));
      }
    }
  }
  process.exit(0);
}

function inTime(promise) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("took longer than a minute")), 60_000).unref());
  return Promise.race([promise, late]);
}

function report(name, marker, outcome, why) {
  process.stdout.write(JSON.stringify({ case: name, marker, outcome, why }) + "\n");
}

// --- what cases say and expect

export const hello = (marker) => `${marker}\n@think hm\n@say Hello ${marker}.`;
export const words = (marker) => `${marker}\n@think hm\n@long 50`;
export const WORDS = Array.from({ length: 50 }, (_, index) => `word${index + 1}`).join(" ");

/** The agent asks for the weather in each city, and speaks when it knows it. */
export const askWeather = (marker, ...cities) =>
  [
    marker,
    "@think hm",
    ...cities.map((city) => `@call get_weather {"city": "${city}"}`),
    "@then",
    `@say Cold ${marker}.`,
  ].join("\n");

/** The agent uses a tool of its own, and then speaks. */
export const byItself = (marker) =>
  [
    marker,
    "@think hm",
    '@call memory_insert {"label": "human", "new_string": "Seen.", "insert_line": -1}',
    "@then",
    "@say One.",
  ].join("\n");

/** The model fails in the middle of its answer. */
export const breaking = (marker) => `${marker}\n@say Hello there, this is going to\n@error`;

/** What the client's tool gives. */
export const weather = (city, marker) => `12 degrees in ${city} ${marker}`;

export const asJson = (marker) => `${marker}\n@say {"city": "Paris", "degrees": 12}`;

export function equal(found, expected) {
  const [have, want] = [JSON.stringify(found), JSON.stringify(expected)];
  if (have !== want) throw new Error(`${have} instead of ${want}`);
}

/** A stream came in pieces, and nothing of it is missing. */
export function several(pieces, text) {
  equal(pieces.join(""), text);
  isTrue(pieces.length > 1, "the text came in one piece");
}

export function isTrue(found, what) {
  if (!found) throw new Error(what);
}

/** The error of this class that a call ends with. */
export async function thrown(isOne, promise) {
  let answer;
  try {
    answer = await promise;
  } catch (error) {
    isTrue(isOne(error), `another error: ${error?.name}: ${error?.message}`);
    return error;
  }
  throw new Error(`no error, but ${JSON.stringify(answer)}`);
}
