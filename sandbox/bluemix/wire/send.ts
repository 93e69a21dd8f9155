import type { ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { Answer } from './exchange.ts'

export interface Rendering {
  pretty?: boolean
  /** Blanks after JSON. */
  paddingBytes?: number
  pauses?: { count: number; ms: number } | undefined
  /** Half of the body, as if it were all. */
  isCut?: boolean
  /** The date header, by the clock of the responding service. */
  date?: Date
}

export async function send(
  response: ServerResponse,
  answer: Answer,
  how: Rendering,
): Promise<void> {
  if (answer.stream) {
    response.writeHead(answer.status, headersOf(answer, how))
    return pipeline(answer.stream, response)
  }
  const whole = Buffer.from(bodyOf(answer, how))
  const body = how.isCut ? whole.subarray(0, Math.floor(whole.length / 2)) : whole
  response.writeHead(answer.status, { ...headersOf(answer, how), 'content-length': body.length })
  if (how.pauses !== undefined) await sendSlowly(response, body, how.pauses)
  response.end(how.pauses === undefined ? body : '')
}

async function sendSlowly(
  response: ServerResponse,
  body: Buffer,
  { count, ms }: { count: number; ms: number },
): Promise<void> {
  const size = Math.ceil(body.length / (count + 1))
  for (let at = 0; at < body.length && !response.destroyed; at += size) {
    if (at > 0) await delay(ms, undefined, { ref: false })
    response.write(body.subarray(at, at + size))
  }
}

/** Sends the complete head and half of the body, then closes the connection. */
export async function sendHalf(
  response: ServerResponse,
  answer: Answer,
  how: Rendering,
): Promise<void> {
  answer.stream?.destroy()
  const body = Buffer.from(bodyOf(answer, how))
  const length = Math.max(body.length, 2)
  response.writeHead(answer.status, { ...headersOf(answer, how), 'content-length': length })
  response.write(body.subarray(0, Math.floor(body.length / 2)) || '', () => response.destroy())
}

function headersOf(answer: Answer, { date }: Rendering) {
  return date ? { ...answer.headers, date: date.toUTCString() } : answer.headers
}

/** Indented by four spaces, as in the procedure of 2017. */
function bodyOf(answer: Answer, { pretty, paddingBytes = 0 }: Rendering): string {
  if (answer.json === undefined) return answer.text ?? ''
  const json = pretty ? `${JSON.stringify(answer.json, null, 4)}\n` : JSON.stringify(answer.json)
  return json + ' '.repeat(paddingBytes)
}
