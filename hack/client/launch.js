// Launches an instance with the published binder-client, as binder-web does:
// it calls deploy, polls the status until there is a location, and opens a path
// of the instance.
//
//   API_KEY=… node launch.js <host> <port> <template> <path>
//
// Progress goes to standard error. Standard output gets the id and the URL that
// was opened.
'use strict'

const { deploy } = require('binder-client')

const timeout = 120 * 1000 // ms; the launch fails after this time
const interval = 250 // ms between two status requests

const [host, port, template, path] = process.argv.slice(2)
const server = { host, port, 'api-key': process.env.API_KEY || '' }

// call calls an endpoint of the client and returns a promise of its result.
function call (endpoint, options) {
  return new Promise((resolve, reject) => {
    deploy[endpoint]({ ...server, ...options }, (error, result) => error ? reject(error) : resolve(result))
  })
}

async function launch () {
  const began = Date.now()
  const progress = (text) => console.error(`  ${((Date.now() - began) / 1000).toFixed(1)}s  ${text}`)

  const { id } = await call('deploy', { 'template-name': template, 'cull-timeout': undefined })
  progress(`launched: ${id}`)
  let last
  while (Date.now() - began < timeout) {
    const { status, location, reason, message } = await call('status', { 'template-name': template, id })
    if (status !== last) {
      progress(status)
      last = status
    }
    if (location) {
      const url = `http://${location}/${path}`
      const answer = await fetch(url)
      progress(`${url} answers ${answer.status}`)
      if (!answer.ok) throw new Error('cannot open the notebook')
      console.log(`${id} ${url}`)
      return
    }
    if (status === 'failed' || status === 'deleted') {
      throw new Error(`the instance is ${status}: ${reason}: ${message}`)
    }
    await new Promise((resolve) => setTimeout(resolve, interval))
  }
  throw new Error(`the instance is still ${last} after ${timeout / 1000}s`)
}

// Exit explicitly: an idle connection would keep the process alive for seconds.
launch().then(() => process.exit(0), (error) => {
  console.error(`launch.js: ${error.message}`)
  process.exit(1)
})
