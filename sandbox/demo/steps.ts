import { readFile } from 'node:fs/promises'
import { styleText } from 'node:util'
import { logIn } from '../bluemix/log-in.ts'
import { namespaceOf } from '../descriptions.ts'
import { waitFor } from '../processes.ts'
import { print, say, showProgress, wrap } from '../progress.ts'
import { pullImage, type pushTestImage } from '../registry.ts'
import type { Sandbox } from '../sandbox.ts'

/** The steps of the demo; each prints what it does and the result. */
export interface Steps {
  heading(title: string): void
  /** Prints the sentence. If it does not hold, the demo fails. */
  expect(holds: boolean, sentence: string): void
  /** Prints the command line, runs it, prints and returns its output. */
  command(line: string, work: () => Promise<string>): Promise<string>
  kubectl(command: string): Promise<string>
  show(file: string): Promise<void>
  /** Prints the Secret as kubectl shows it, with its credential redacted. */
  showSecret(namespace: string): Promise<void>
  /** Without the marks of leaders. */
  mints(): string[]
  pushImage(): Promise<void>
  /** Pulls with the credential of the namespace's Secret, or with none. */
  pull(namespace: string | undefined): ReturnType<typeof pullImage>
  /** How often each pod of the namespace names the pull secret, once there are `count` pods. */
  references(namespace: string, count: number): Promise<Map<string, number>>
}

export function createSteps(
  image: string,
  { controlPlane, environment }: Pick<Sandbox, 'controlPlane' | 'environment'>,
  push: typeof pushTestImage,
): Steps {
  const quietly = async (command: string) => {
    const { code, stdout, stderr } = await controlPlane.kubectl(...command.split(' '))
    if (code !== 0) throw new Error(`kubectl ${command}: ${stderr}`)
    return (stderr + stdout).trim()
  }
  return {
    heading: title => print(`\n${styleText('bold', title)}`),
    expect,
    command,
    kubectl: words => command(`kubectl ${words}`, () => quietly(words)),
    show: async file => {
      print(styleText('cyan', `$ cat ${file}`))
      print((await readFile(file, 'utf8')).trimEnd())
    },
    showSecret: async namespace => {
      const command = `get secret pullpass-registry -n ${namespace} -o yaml`
      print(styleText('cyan', `$ kubectl ${command}`))
      print(redacted(await quietly(command)))
    },
    mints: () =>
      environment.ledger
        .mints()
        .filter(namespaceOf)
        .map(token => {
          const { id, permanent, write } = token
          return `${id} for ${namespaceOf(token)}, ${permanent ? 'permanent' : 'expiring'}, ${write ? 'read-write' : 'read-only'}`
        }),
    pushImage: async () => {
      const credential = { username: 'bearer', password: await logIn(environment) }
      const digest = await push(image, credential, environment)
      say(`pushed ${image} (${digest.slice(0, 19)}...) with crane`)
    },
    pull: async namespace => {
      const secret =
        namespace && (await quietly(`get secret pullpass-registry -n ${namespace} -o json`))
      const config = secret ? JSON.parse(secret).data['.dockerconfigjson'] : undefined
      const text = config && Buffer.from(config, 'base64').toString()
      print(styleText('cyan', `$ crane pull ${image}`))
      return showProgress('pulling', () => pullImage(image, text, environment))
    },
    references: (namespace, count) => references(namespace, count, quietly),
  }
}

async function command(line: string, work: () => Promise<string>): Promise<string> {
  print(wrap(styleText('cyan', `$ ${line}`), '    '))
  const answer = await showProgress(line.split(' ', 2).join(' '), work)
  if (answer !== '')
    print(
      answer
        .split('\n')
        .map(said => wrap(said, '  '))
        .join('\n'),
    )
  return answer
}

function expect(holds: boolean, sentence: string): void {
  const mark = holds ? styleText('green', 'ok') : styleText('red', 'FAILED')
  print(wrap(`  ${mark}  ${sentence}`, '      '))
  if (!holds) throw new Error(`the demo failed: this is not true: ${sentence}`)
}

function redacted(yaml: string): string {
  return yaml.replace(/(\.dockerconfigjson: )\S+/, '$1[redacted]')
}

async function references(
  namespace: string,
  count: number,
  kubectl: (command: string) => Promise<string>,
): Promise<Map<string, number>> {
  type Pod = { metadata: { name: string }; spec: { imagePullSecrets?: { name: string }[] } }
  let pods: Pod[] = []
  const arrive = async () => {
    pods = JSON.parse(await kubectl(`get pods -n ${namespace} -o json`)).items
    return pods.length >= count
  }
  await showProgress('waiting for pods', () =>
    waitFor(arrive, { withinMs: 30_000, what: `${count} pods in ${namespace}` }),
  )
  const named = ({ spec }: Pod) =>
    (spec.imagePullSecrets ?? []).filter(({ name }) => name === 'pullpass-registry').length
  return new Map(pods.map(pod => [pod.metadata.name, named(pod)]))
}
