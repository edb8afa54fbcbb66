// Calls one deploy endpoint by the published binder-client:
//
//   node call.js <deploy|status|statusAll> '<options as JSON>'
//
// and prints {"error": <message or null>, "result": …}.
'use strict'

const binder = require('binder-client')

const [method, options] = process.argv.slice(2)
if (!binder.deploy[method]) {
  console.error(`binder-client has no deploy endpoint ${JSON.stringify(method)}; it has ${Object.keys(binder.deploy)}`)
  process.exit(2)
}
binder.deploy[method](JSON.parse(options), (error, result) => {
  console.log(JSON.stringify({ error: error ? error.message : null, result }))
})
