import { once } from 'node:events'
import { dirname } from 'node:path'
import { parseArgs } from 'node:util'
import type { ControlPlane } from './control-plane.ts'
import { runChartScenario } from './demo/chart-scenario.ts'
import { image, runScenario } from './demo/scenario.ts'
import { createSteps } from './demo/steps.ts'
import { type HelmSandbox, type HelmVersion, startHelmSandbox } from './helm.ts'
import { pushHello } from './node/hello.ts'
import { enterOwnNetwork, hasOwnNetwork, obstacleToNode } from './node/own-network.ts'
import { print, startProgress } from './progress.ts'
import { pushTestImage } from './registry.ts'
import { type Sandbox, startSandbox } from './sandbox.ts'
import { ToolError } from './tools/tool-error.ts'

const USAGE = `npm run demo                    runs pullpass as one process beside a cluster
npm run demo -- --helm          installs the chart with Helm 4 (--helm=3: Helm 3), as root on Linux
npm run demo -- --keep          keeps everything running afterwards`

const SHOWN = `Shown: a namespace got a label. From then on its pods named a pull secret, pullpass minted
the token in it, and the image was pulled with it. Nothing else was changed.`
const SHOWN_WITH_CHART = `Shown: the chart was installed, and a namespace got a label. From then on its pods named a pull
secret, pullpass minted the token in it, and the kubelet pulled the image with it. Under load, no
pod was refused. Nothing else was changed.`
const NEXT = `Next:
  npm run demo -- --keep   shows the same and keeps it running, so that you can use kubectl
  README.md, "Install"     says how to install pullpass in your cluster`

/** Runs the demo with real programs; exits with 0 if every statement is true. */
async function main(args: string[]): Promise<void> {
  const { helm, keep } = readArguments(args)
  if (helm !== undefined) await prepareForNode()
  const sandbox = await start(helm)
  try {
    const push = helm === undefined ? pushTestImage : pushHello
    const steps = createSteps(image, sandbox, push)
    if ('pullpass' in sandbox) await runScenario(steps)
    else await runChartScenario({ steps, sandbox }, keep)
    print(`\n${helm === undefined ? SHOWN : SHOWN_WITH_CHART}\n`)
    if (keep) await keepOpen(sandbox.controlPlane)
    else print(NEXT)
  } finally {
    await sandbox.stop()
  }
}

/** Then this program is started again, in a network of its own. */
async function prepareForNode(): Promise<void> {
  const obstacle = obstacleToNode()
  if (obstacle !== undefined) throw new ToolError(obstacle)
  await enterOwnNetwork()
}

async function start(helm: HelmVersion | undefined): Promise<Sandbox | HelmSandbox> {
  const starting = startProgress('preparing')
  const progress = (what: string) => starting.now(`starting ${what}`)
  try {
    return helm === undefined
      ? await startSandbox({ progress })
      : await startHelmSandbox({ version: helm, progress })
  } finally {
    starting.stop()
  }
}

function readArguments(args: string[]): { helm: HelmVersion | undefined; keep: boolean } {
  const options = { keep: { type: 'boolean' }, helm: { type: 'string' } } as const
  // `--helm` without a version means Helm 4.
  const { values } = parseArgs({
    options,
    args: args.map(arg => (arg === '--helm' ? '--helm=4' : arg)),
  })
  const { helm, keep = false } = values
  if (helm === undefined || helm === '3' || helm === '4') {
    return { helm: helm && (Number(helm) as HelmVersion), keep }
  }
  throw new ToolError(`--helm must be 3 or 4, got "${helm}"\n\n${USAGE}`)
}

async function keepOpen({ kubeconfigFile, kubectlFile }: ControlPlane): Promise<void> {
  const enter = hasOwnNetwork() ? `\n  nsenter --net --target ${process.pid} sh` : ''
  print(`Everything keeps running. In another terminal:
${enter}
  export KUBECONFIG=${kubeconfigFile}
  export PATH=${dirname(kubectlFile)}:$PATH
  kubectl get namespaces --show-labels
  kubectl get secret pullpass-registry -n shop -o yaml
  kubectl run mine -n shop --image=${image}
  kubectl get pod mine -n shop -o jsonpath='{.spec.imagePullSecrets}'

Ctrl-C stops it.`)
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  error => {
    console.error(error instanceof ToolError ? error.message : error)
    process.exit(1)
  },
)
