import type { ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import type { Answer } from './exchange.ts'

export interface Rendering {
  pretty?: boolean
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
  const body = Buffer.from(bodyOf(answer, how))
  response.writeHead(answer.status, { ...headersOf(answer, how), 'content-length': body.length })
  response.end(body)
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
function bodyOf(answer: Answer, { pretty }: Rendering): string {
  if (answer.json === undefined) return answer.text ?? ''
  return pretty ? `${JSON.stringify(answer.json, null, 4)}\n` : JSON.stringify(answer.json)
}
