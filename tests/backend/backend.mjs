// An application's backend: mints tokens, takes events, answers questions. Node, without packages.
import { createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'

const { CALLBOX_SECRET, HOOKS_SECRET, PORT } = process.env
const seen = new Set()

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
function mint(user, room) {
  const claims = { sub: user, room, exp: Math.floor(Date.now() / 1000) + 600 }
  const text = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64(claims)}`
  return `${text}.${createHmac('sha256', CALLBOX_SECRET).update(text).digest('base64url')}`
}

function isSigned(header, body) {
  const { t, v1 } = Object.fromEntries((header ?? '').split(',').map((part) => part.split('=')))
  const expected = createHmac('sha256', HOOKS_SECRET).update(`${t}.${body}`).digest()
  const given = Buffer.from(v1 ?? '', 'hex')
  const isFresh = Math.abs(Date.now() / 1000 - t) < 300
  return isFresh && given.length === expected.length && timingSafeEqual(given, expected)
}

async function answer(request, response) {
  const { pathname, searchParams } = new URL(request.url, 'http://backend')
  // Your own login says who the user is; here anybody is who they say.
  if (pathname === '/token') return response.end(mint(searchParams.get('user'), searchParams.get('room')))
  const body = Buffer.concat(await request.toArray()).toString()
  if (!isSigned(request.headers['callbox-signature'], body)) return response.writeHead(401).end()
  if (pathname === '/authorize') {
    const { identity } = JSON.parse(body)
    const answer = identity === 'mallory' ? { allow: false, reason: 'not on the list' } : { allow: true }
    return response.end(JSON.stringify(answer))
  }
  for (const event of JSON.parse(body).events) {
    if (seen.has(event.id)) continue // It came twice: the first answer was lost.
    seen.add(event.id)
    console.log(event.type, event.room ?? '', event.identity ?? '')
  }
  response.end()
}

// A request that callbox did not send may be anything: it ends its own connection alone.
createServer((request, response) => answer(request, response).catch(() => response.destroy())).listen(PORT, '127.0.0.1')
