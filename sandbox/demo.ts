import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { runChartScenario } from './demo/chart-scenario.ts'
import { say, showProgress } from './demo/progress.ts'
import { image, runScenario } from './demo/scenario.ts'
import { createSteps } from './demo/steps.ts'
import { type HelmSandbox, type HelmVersion, startHelmSandbox } from './helm.ts'
import { type Sandbox, startSandbox } from './sandbox.ts'
import { ToolError } from './tools/tool-error.ts'

const USAGE = `npm run demo                    pullpass as one process beside a cluster
npm run demo -- --helm          its chart, installed with Helm 4 (--helm=3: Helm 3)
npm run demo -- --keep          the same, and it goes on running afterwards`

const progress = (what: string) => say(`starting ${what}`)

/** Runs the demo of one pull secret on real parts; exits with 0 if every statement holds. */
async function main(args: string[]): Promise<void> {
  const { helm, keep } = readArguments(args)
  const start = (): Promise<Sandbox | HelmSandbox> =>
    helm === undefined ? startSandbox({ progress }) : startHelmSandbox({ version: helm, progress })
  const sandbox = await showProgress('starting', start)
  try {
    const steps = createSteps(image, sandbox)
    if ('pullpass' in sandbox) await runScenario(steps)
    else await runChartScenario({ steps, sandbox }, keep)
    if (keep) await keepOpen(sandbox.controlPlane.kubeconfigFile)
  } finally {
    await sandbox.stop()
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

async function keepOpen(kubeconfigFile: string): Promise<void> {
  console.log(`\nIt goes on running. In another terminal:

  export KUBECONFIG=${kubeconfigFile}
  kubectl get namespaces --show-labels

Ctrl-C ends it.`)
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  error => {
    console.error(error instanceof ToolError ? error.message : error)
    process.exit(1)
  },
)
