// Calls one deploy endpoint with the published binder-client:
//
//   node call.js <endpoint> '<options as JSON>'
//
// The endpoint is a method of binder-client, such as deploy, status or statusAll.
// The output is {"error": <message or null>, "result": …}.
'use strict'

const binder = require('binder-client')

const [method, options] = process.argv.slice(2)
if (!binder.deploy[method]) {
  console.error(`unknown deploy endpoint ${JSON.stringify(method)}; binder-client has ${Object.keys(binder.deploy)}`)
  process.exit(2)
}
binder.deploy[method](JSON.parse(options), (error, result) => {
  console.log(JSON.stringify({ error: error ? error.message : null, result }))
})
