// What somebody does with npm's replicate: files, a model, trainings, lists, errors, webhooks. REPLICATE_NODE_FOLDER has its node_modules.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const Replicate = createRequire(`${process.env.REPLICATE_NODE_FOLDER}/`)("replicate");
const asked = JSON.parse(readFileSync(0, "utf8"));
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const final = ["succeeded", "failed", "canceled"];

async function run() {
  const client = new Replicate({ auth: asked.key, baseUrl: asked.base_url });
  const [owner, name] = asked.destination.split("/");
  const model = await client.models.create(owner, name, { visibility: "private", hardware: "cpu" });
  const archive = new Blob([readFileSync(asked.archive)], { type: "application/zip" });
  const file = await client.files.create(archive, { from: "node" });
  const webhook = { webhook: asked.webhook, webhook_events_filter: ["completed"] };
  let training = await create(client, { ...asked.input, instance_data: file.urls.get }, webhook);
  while (!final.includes(training.status)) {
    await pause(500);
    training = await client.trainings.get(training.id);
  }
  const listed = [];
  for await (const page of client.paginate(client.trainings.list)) listed.push(...page.map((found) => found.id));
  return {
    model: [model.owner, model.name, model.visibility],
    file: [file.metadata, (await client.files.get(file.id)).size],
    training: { id: training.id, status: training.status, output: training.output, error: training.error },
    listed,
    canceled: await cancel(client, file.urls.get),
    errors: await errors(client, archive),
    secret: (await client.webhooks.default.secret.get()).key,
    deleted: await client.files.delete(file.id),
  };
}

function create(client, input, more = {}, destination = asked.destination) {
  const [model, version] = asked.version.split(":");
  const [owner, name] = model.split("/");
  return client.trainings.create(owner, name, version, { destination, input, ...more });
}

async function cancel(client, archiveUrl) {
  let training = await create(client, { ...asked.input, instance_data: archiveUrl, max_train_steps: 100000 });
  while (training.status === "starting") {
    await pause(500);
    training = await client.trainings.get(training.id);
  }
  training = await client.trainings.cancel(training.id);
  while (training.status === "processing") {
    await pause(500);
    training = await client.trainings.get(training.id);
  }
  return training.status;
}

async function errors(client, archive) {
  const attempts = [
    () => client.trainings.get("nosuchtraining"),
    () => create(client, { ...asked.input, instance_data: archive }), // this client does not upload it: {} arrives
    () => create(client, { ...asked.input, instance_data: "https://example.org/a.zip" }, {}, `${asked.destination}-none`),
  ];
  const found = [];
  for (const attempt of attempts) {
    try {
      await attempt();
      found.push(null);
    } catch (error) {
      found.push(error.response?.status ?? String(error));
    }
  }
  return found;
}

const answer = asked.headers
  ? await Replicate.validateWebhook({ headers: asked.headers, body: asked.body }, asked.secret)
  : await run();
console.log(JSON.stringify(answer));
