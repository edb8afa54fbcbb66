// Launches a repository with binderhub-client, and prints each event as a line of JSON.
//
//   node launch.mjs <address of /build/> <provider>/<repository>/<version>
globalThis.window = globalThis; // it is written for browsers
globalThis.document = Object.assign(new EventTarget(), { cookie: "" });
const { BinderRepository } = await import("@jupyterhub/binderhub-client/client.js");

const [build, spec] = process.argv.slice(2);
const repository = new BinderRepository(spec, new URL(build));
for await (const event of repository.fetch()) {
  console.log(JSON.stringify(event));
  if (event.phase === "ready" || event.phase === "failed") {
    repository.close();
    break;
  }
}
