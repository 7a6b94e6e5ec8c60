// Runs the public HTTP cache tests against the reverse proxy; see scripts/conformance.
//
//   node run.mjs SUITE release|newest PROXY CACHE yes|no PROFILE...
//
// The last but the profiles: whether to write anew what is not passed, and the README's table.
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const [suite, version, proxy, cache, update, ...profiles] = process.argv.slice(2)
const newest = version === 'newest'
const engine = newest ? join(suite, 'test-engine') : suite
const module = path => import(pathToFileURL(resolve(path)))

const started = []
const stop = () => started.forEach(child => child.kill('SIGKILL'))
process.on('exit', stop)
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130))

const freePort = () => new Promise((resolve, reject) => {
  const server = createServer().once('error', reject)
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address()
    server.close(() => resolve(port))
  })
})

// Starts a program and waits for a line of it that matches.
const start = (program, args, env, line) => new Promise((resolve, reject) => {
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  started.push(child)
  let said = ''
  const hear = text => {
    said += text
    const found = said.match(line)
    if (found) resolve({ child, found })
  }
  child.stdout.setEncoding('utf8').on('data', hear)
  child.stderr.setEncoding('utf8').on('data', text => { said += text })
  child.once('error', reject)
  child.once('exit', code => reject(new Error(`${program} ended with ${code}:\n${said}`)))
})

// The suite keeps its results in its modules, so each run has a process of its own.
const runner = `
  import { runTests, getResults } from ${JSON.stringify(pathToFileURL(resolve(engine, 'client/runner.mjs')).href)}
  import tests from ${JSON.stringify(pathToFileURL(resolve(suite, 'tests/index.mjs')).href)}
  const base = process.argv[1]
  const only = process.argv.slice(2)
  if (only.length) tests.forEach(part => { part.tests = part.tests.filter(test => only.includes(test.id)) })
  const most = 1000
  ${newest
    ? 'await runTests(tests, false, base, most)'
    : `const { default: fetch } = await import(${JSON.stringify(newest ? '' : pathToFileURL(createRequire(resolve(suite, 'cli.mjs')).resolve('node-fetch')).href)})
       await runTests(tests, fetch, false, base, most)`}
  process.stdout.write(JSON.stringify(getResults()), () => process.exit(0))
`
const run = (base, only = []) => new Promise((resolve, reject) => {
  const child = spawn(process.execPath, ['--no-warnings', '--input-type=module', '-e', runner, base, ...only],
    { stdio: ['ignore', 'pipe', 'pipe'] })
  started.push(child)
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', text => { out += text })
  child.stderr.setEncoding('utf8').on('data', text => { err += text })
  child.once('error', reject)
  child.once('exit', () => {
    try { resolve(JSON.parse(out)) } catch { reject(new Error(`the suite failed:\n${err}${out.slice(0, 2000)}`)) }
  })
})

const tests = (await module(join(suite, 'tests/index.mjs'))).default
  .flatMap(part => part.tests.map(test => ({ ...test, part: part.name })))
  .filter(test => !test.browser_only)
const kinds = ['required', 'optimal', 'check']
const kind = test => test.kind ?? 'required'
const byId = new Map(tests.map(test => [test.id, test]))

// A test counts if everything that it depends on passes, too.
const passes = (results, test) => results[test.id] === true &&
  (test.depends_on ?? []).every(id => byId.has(id) ? passes(results, byId.get(id)) : results[id] === true)

let failed = false
const scores = []
for (const profile of profiles) {
  const port = await freePort()
  // The origin of the suite listens everywhere unless it is told otherwise.
  const local = `data:text/javascript,import net from "node:net"; const listen = net.Server.prototype.listen;
    net.Server.prototype.listen = function (port, ...rest) { return listen.call(this, port, "127.0.0.1", ...rest) }`
  const origin = start(process.execPath, ['--no-warnings', '--import', local, join(engine, 'server/server.mjs')], {
    npm_config_protocol: 'http', npm_config_port: String(port), npm_config_pidfile: '/dev/null'
  }, /Listening on/)
  const served = start(proxy, ['--origin', `http://127.0.0.1:${port}`, '--listen', '127.0.0.1:0', '--cache', cache,
    '--profile', profile === 'contested' ? 'rfc9111' : profile, ...(profile === 'contested' ? ['--contested'] : [])], {}, /Listening on (http:\/\/\S+)/)
  const { found } = await served
  await origin
  const begun = Date.now()
  const results = await run(found[1])
  const list = join(here, `${version}-${profile}.txt`)
  const line = test => `${kind(test)} ${test.id}`
  const known = new Set(existsSync(list) ? readFileSync(list, 'utf8').split('\n').filter(Boolean) : [])
  // The tests wait real seconds and expect answers within one. On a machine that is busy some come too late, so what
  // fails is tried twice more, with less at once; a cache that is wrong is wrong again.
  for (let again = 0; again < 2; again++) {
    const late = tests.filter(test => results[test.id] !== true && !known.has(line(test)) && kind(test) !== 'check')
    if (late.length === 0) break
    console.log(`  once more: ${late.map(test => test.id).join(', ')}`)
    Object.assign(results, await run(found[1], late.map(test => test.id)))
  }
  const seconds = ((Date.now() - begun) / 1000).toFixed(1)
  for (const child of started.splice(0)) child.removeAllListeners('exit').kill('SIGKILL')

  const score = Object.fromEntries(kinds.map(name => {
    const all = tests.filter(test => kind(test) === name)
    return [name, [all.filter(test => passes(results, test)).length, all.length]]
  }))
  scores.push({ profile, score })
  console.log(`${version}, ${profile}: ` +
    kinds.map(name => `${name} ${score[name].join(' of ')}`).join(', ') + ` (${seconds} s)`)

  const missed = tests.filter(test => kind(test) !== 'check' && !passes(results, test))
  if (update === 'yes') {
    writeFileSync(list, missed.map(test => line(test) + '\n').join(''))
    continue
  }
  const now = new Set(missed.map(line))
  for (const test of missed.filter(test => !known.has(line(test)))) {
    failed = true
    const why = results[test.id] === true ? 'what it depends on fails' : JSON.stringify(results[test.id])
    console.log(`  not passed: ${line(test)}: ${test.name} (${test.part}): ${why}`)
  }
  for (const one of [...known].filter(one => !now.has(one))) {
    failed = true
    console.log(`  passed, and listed as not passed: ${one}`)
  }
}
if (update === 'yes') {
  const readme = join(here, '../../README.md')
  const text = readFileSync(readme, 'utf8')
  for (const { profile, score } of scores) {
    const row = new RegExp(`^\\| \`${profile}\`, ${version} \\|.*$`, 'm')
    const cells = ['required', 'optimal'].map(name => score[name].join(' of '))
    if (!row.test(text)) console.log(`README.md has no row for ${profile}, ${version}`)
    else writeFileSync(readme, readFileSync(readme, 'utf8').replace(row, `| \`${profile}\`, ${version} | ${cells.join(' | ')} |`))
  }
}
process.exit(failed ? 1 : 0)
