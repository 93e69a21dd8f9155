import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** What a go.mod and its go.sum pin. */
export interface Pins {
  /** The oldest Go version that works, as in `1.26.0`. */
  go: string
  version(module: string): string
  /** Changes if anything in go.mod or go.sum changes. */
  digest: string
}

/** Reads go.mod and go.sum in `folder`. */
export async function readPins(folder: string): Promise<Pins> {
  const mod = await readFile(join(folder, 'go.mod'), 'utf8')
  const sum = await readFile(join(folder, 'go.sum'), 'utf8')
  // `go 1.26.0`, and inside require ( ... ): `k8s.io/kubernetes v1.37.2 // indirect`
  const lines = mod.split('\n').map(line => line.trim().split(' '))
  const version = (of: string) => {
    const line = lines.find(([name, next = '']) => name === of && /^v?\d/.test(next))
    if (line?.[1] === undefined) throw new Error(`${folder}/go.mod names no version of ${of}`)
    return line[1]
  }
  return {
    go: version('go'),
    version,
    digest: createHash('sha256').update(mod).update(sum).digest('hex').slice(0, 12),
  }
}
