// Launches an instance as binder-web does, by the published binder-client:
// deploy, then ask for the status once a moment until there is a location.
//
//   API_KEY=… node launch.js <host> <port> <template> <path>
//
// and opens a path of it. Progress goes to standard error; standard output gets
// the id and the address that was opened.
'use strict'

const { deploy } = require('binder-client')

const patience = 120 * 1000 // ms until a launch is given up
const pause = 250 // ms between two questions

const [host, port, template, path] = process.argv.slice(2)
const server = { host, port, 'api-key': process.env.API_KEY || '' }

// ask calls an endpoint of the client and returns a promise of its result.
function ask (endpoint, options) {
  return new Promise((resolve, reject) => {
    deploy[endpoint]({ ...server, ...options }, (error, result) => error ? reject(error) : resolve(result))
  })
}

async function launch () {
  const began = Date.now()
  const progress = (text) => console.error(`  ${((Date.now() - began) / 1000).toFixed(1)}s  ${text}`)

  const { id } = await ask('deploy', { 'template-name': template, 'cull-timeout': undefined })
  progress(`launched: ${id}`)
  let last
  while (Date.now() - began < patience) {
    const { status, location, reason, message } = await ask('status', { 'template-name': template, id })
    if (status !== last) {
      progress(status)
      last = status
    }
    if (location) {
      const url = `http://${location}/${path}`
      const answer = await fetch(url)
      progress(`${url} answers ${answer.status}`)
      if (!answer.ok) throw new Error('the notebook does not open')
      console.log(`${id} ${url}`)
      return
    }
    if (status === 'failed' || status === 'deleted') {
      throw new Error(`the instance is ${status}: ${reason}: ${message}`)
    }
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
  throw new Error(`the instance is still ${last} after ${patience / 1000}s`)
}

// An explicit exit, for an idle connection would keep the process for seconds.
launch().then(() => process.exit(0), (error) => {
  console.error(`launch.js: ${error.message}`)
  process.exit(1)
})
