import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'
import { parseAllDocuments } from 'yaml'
import { tool } from '../../sandbox/tools.ts'

export const CHART = resolve(import.meta.dirname, '../../charts/pullpass')

/** The least that must be said: charts/pullpass/ci/minimal-values.yaml. */
export const MINIMAL = join(CHART, 'ci/minimal-values.yaml')

export type HelmVersion = 'helm' | 'helm3'
// biome-ignore lint/suspicious/noExplicitAny: a test reads where it expects something to be
export type Manifest = any

export interface Ended {
  code: number | null
  stdout: string
  stderr: string
}

/** Real Helm with its own home folder. `values` are added to those in the arguments. */
export async function createHelm(t: Test, version: HelmVersion, kubeconfig = '/dev/null') {
  const home = await mkdtemp(join(tmpdir(), 'pullpass-helm-'))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const program = await tool(version)
  const env = {
    PATH: process.env.PATH ?? '',
    HOME: home,
    KUBECONFIG: kubeconfig,
    HELM_NAMESPACE: 'pullpass',
  }
  const helm = (args: string[], values: object = {}) =>
    run(program, [...args, '--values', '-'], { env, input: JSON.stringify(values) })
  const plain = (args: string[]) => run(program, args, { env, input: '' })
  return {
    helm,
    plain,
    template: (args: string[], values?: object) =>
      helm(['template', 'pullpass', CHART, ...args], values),
    /** The rendered objects of the chart; fails the test if it cannot be rendered. */
    render: async (args: string[], values?: object): Promise<Manifest[]> => {
      const ended = await helm(['template', 'pullpass', CHART, ...args], values)
      if (ended.code !== 0) throw new Error(ended.stderr)
      return documents(ended.stdout)
    },
  }
}

export function documents(yaml: string): Manifest[] {
  return parseAllDocuments(yaml)
    .map(document => document.toJS())
    .filter(Boolean)
}

/** The one object of this kind and name. */
export function find(manifests: Manifest[], kind: string, name?: string): Manifest {
  const found = manifests.filter(
    one => one.kind === kind && (name === undefined || one.metadata.name === name),
  )
  if (found.length !== 1) throw new Error(`${found.length} of ${kind} ${name ?? ''}`)
  return found[0]
}

async function run(
  program: string,
  args: string[],
  options: { env: NodeJS.ProcessEnv; input: string },
): Promise<Ended> {
  const child = spawn(program, args, { env: options.env })
  // A program that ends early because of bad arguments does not read its input.
  child.stdin.on('error', () => {})
  child.stdin.end(options.input)
  const read = (stream: Readable) => text(stream)
  const [stdout, stderr, code] = await Promise.all([
    read(child.stdout),
    read(child.stderr),
    new Promise<number | null>(resolve => child.once('close', resolve)),
  ])
  return { code, stdout, stderr }
}
