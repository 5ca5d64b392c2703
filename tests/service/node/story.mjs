// A job's story through the official Node client, as it is: it tells in JSON lines what the service said.
// HONE_NODE_MODULES is a folder in which `npm install openai` was called.
import { createReadStream } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.HONE_NODE_MODULES, "story.js"));
const { OpenAI } = require("openai");
const client = new OpenAI({ baseURL: process.env.HONE_BASE_URL, apiKey: process.env.HONE_API_KEY, maxRetries: 0 });
const [rows, model, chats] = process.argv.slice(2);
const tell = (name, value) => console.log(JSON.stringify({ [name]: value }));
const all = async (pages) => {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
};

const file = await client.files.create({ file: createReadStream(rows), purpose: "fine-tune" });
tell("file", (await client.files.waitForProcessing(file.id)).status);
tell("content", await (await client.files.content(file.id)).text());

const job = await client.fineTuning.jobs.create({
  model,
  training_file: file.id,
  suffix: "node",
  seed: 7,
  metadata: { from: "node" },
  method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 1, batch_size: 4 } } },
});
tell("job", job);

let now = job;
while (!["succeeded", "failed", "cancelled"].includes(now.status)) {
  await new Promise((done) => setTimeout(done, 200));
  now = await client.fineTuning.jobs.retrieve(job.id);
}
tell("end", now);
tell("jobs", (await all(client.fineTuning.jobs.list({ metadata: { from: "node" } }))).map((one) => one.id));
tell("events", await all(client.fineTuning.jobs.listEvents(job.id, { limit: 2 })));
tell("checkpoints", await all(client.fineTuning.jobs.checkpoints.list(job.id, { limit: 1 })));
const csv = now.result_files[0];
tell("csv", csv ? await (await client.files.content(csv)).text() : null);

if (chats === "chats") {
  const asked = { model: now.fine_tuned_model, messages: [{ role: "user", content: "3?" }], max_tokens: 4, temperature: 0 };
  const whole = await client.chat.completions.create(asked);
  let streamed = "";
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
  }
  tell("chat", { whole: whole.choices[0].message.content, streamed });
}

const refusals = [];
for (const wrong of [
  () => client.fineTuning.jobs.retrieve("ftjob-unknown"),
  () => client.fineTuning.jobs.cancel(job.id),
  () => client.fineTuning.jobs.create({ model: "no-such", training_file: file.id }),
]) {
  try {
    await wrong();
    refusals.push(null);
  } catch (error) {
    refusals.push({ status: error.status, param: error.param, request: Boolean(error.requestID ?? error.request_id) });
  }
}
tell("refusals", refusals);
tell("model", await client.models.delete(now.fine_tuned_model));
tell("deleted", await client.files.delete(file.id));
