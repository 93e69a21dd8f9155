import { stringify } from 'yaml'
import { namespaceOf } from '../descriptions.ts'
import type { HelmSandbox, Values } from '../helm.ts'
import { type LoadGenerator, startLoadGenerator } from '../load-generator.ts'
import { showProgress } from '../progress.ts'
import { image, runScenario } from './scenario.ts'
import type { Steps } from './steps.ts'

interface ChartDemo {
  steps: Steps
  sandbox: HelmSandbox
}

/** The same demo with the chart, from its installation to its removal. */
export async function runChartScenario(demo: ChartDemo, keep: boolean): Promise<void> {
  const { steps, sandbox } = demo
  await install(demo)
  await runScenario(steps)
  await run(demo)
  await test(demo)
  steps.heading('From now on, ten pods per second are created in a labelled namespace')
  await steps.kubectl('create namespace busy')
  await steps.kubectl('label namespace busy pullpass.io/inject=enabled')
  const { controlPlane } = sandbox
  const load = startLoadGenerator({ controlPlane, namespace: 'busy', image, perSecond: 10 })
  try {
    await upgrade(demo, load)
    await takeBack(demo)
    if (!keep) await uninstall(demo, load)
  } finally {
    await load.stop()
  }
}

async function install({ steps, sandbox }: ChartDemo): Promise<void> {
  steps.heading('The chart is installed')
  const values = sandbox.values()
  await steps.command('cat values.yaml', async () => stringify(abridged(values)).trimEnd())
  await helm({ steps, sandbox }, 'install pullpass charts/pullpass --wait', values)
  await steps.kubectl('get pods -n pullpass')
  const ready = await steps.kubectl(
    'get deployment pullpass -n pullpass -o jsonpath={.status.readyReplicas}',
  )
  steps.expect(ready === '2', 'two replicas are ready')
}

async function run({ steps }: ChartDemo): Promise<void> {
  steps.heading('The kubelet pulls the image with that credential, and runs it')
  await steps.kubectl('wait pod mypod -n shop --for=condition=Ready --timeout=120s')
  const logged = await steps.kubectl('logs mypod -n shop')
  steps.expect(logged === 'hello from mypod', 'the container of the image runs')
  const reason = await steps.kubectl(`get pod mypod -n quiet -o jsonpath=${REASON}`)
  const refused = ['ErrImagePull', 'ImagePullBackOff'].includes(reason)
  steps.expect(refused, 'without the credential, the registry refuses the kubelet')
}

const REASON = '{.status.containerStatuses[0].state.waiting.reason}'

async function test({ steps, sandbox }: ChartDemo): Promise<void> {
  steps.heading('helm test creates a pod with dryRun, through the real API server and webhook')
  const said = await helm({ steps, sandbox }, 'test pullpass')
  steps.expect(said.includes('names pullpass-registry'), 'the pod has the reference')
}

async function upgrade({ steps, sandbox }: ChartDemo, load: LoadGenerator): Promise<void> {
  steps.heading('A setting is changed: both replicas are replaced')
  const before = await sandbox.pods()
  const change = '--reuse-values --set controller.concurrency=8 --wait'
  await helm({ steps, sandbox }, `upgrade pullpass charts/pullpass ${change}`)
  const after = (await sandbox.pods()).map(({ metadata }) => metadata?.name)
  const replaced = before.every(({ metadata }) => !after.includes(metadata?.name))
  steps.expect(replaced, `${after.join(' and ')} are new`)
  const { created, refused, withoutReference } = await load.count()
  steps.expect(refused.length === 0, `none of ${created} pods was refused`)
  steps.expect(withoutReference.length === 0, 'each pod names the Secret')
}

async function takeBack({ steps, sandbox }: ChartDemo): Promise<void> {
  const { environment } = sandbox
  steps.heading('A namespace loses its label, and clean-up removes its token and Secret at once')
  await steps.kubectl('label namespace elsewhere pullpass.io/inject-')
  await steps.kubectl('create job clean-up -n pullpass --from=cronjob/pullpass-clean-up')
  await steps.kubectl('wait job/clean-up -n pullpass --for=condition=complete --timeout=360s')
  const said = await steps.kubectl('logs job/clean-up -n pullpass')
  steps.expect(
    ['elsewhere: Secret deleted', 'elsewhere: token revoked'].every(line => said.includes(line)),
    'clean-up deleted the Secret and revoked the token',
  )
  const live = environment.ledger.liveTokens().filter(token => namespaceOf(token) === 'elsewhere')
  steps.expect(live.length === 0, 'the environment has no live token for this namespace')
}

async function uninstall({ steps, sandbox }: ChartDemo, load: LoadGenerator): Promise<void> {
  steps.heading('The release is uninstalled')
  await helm({ steps, sandbox }, 'uninstall pullpass --wait')
  await steps.kubectl('wait pods -n pullpass --all --for=delete --timeout=60s')
  await showProgress('stopping the pods', load.stop)
  const { created, refused } = await load.count()
  steps.expect(refused.length === 0, `none of ${created} pods was refused until the end`)
  const left = await steps.kubectl(`get ${KINDS} -A -l app.kubernetes.io/instance=pullpass -o name`)
  steps.expect(left === '', 'no object of the release remains')
  const kept = await steps.kubectl('get secrets,leases -n pullpass -o name')
  steps.expect(kept === KEPT, 'its namespace still contains the CA, the Lease and your credentials')
  const secrets = await steps.kubectl('get secrets -A -l pullpass.io/pull-secret=true')
  const stay = ['shop', 'busy'].every(name => secrets.includes(`${name} `))
  steps.expect(stay, 'labelled namespaces keep their Secrets, so their pods can still pull')
}

const KINDS = [
  ...[
    'deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,jobs,cronjobs,roles',
  ],
  ...['rolebindings,clusterroles,clusterrolebindings,mutatingwebhookconfigurations'],
].join(',')
const KEPT = ['secret/bluemix', 'secret/pullpass-ca', 'lease.coordination.k8s.io/pullpass'].join(
  '\n',
)

async function helm(
  { steps, sandbox }: ChartDemo,
  command: string,
  values?: Values,
): Promise<string> {
  const line = `helm ${command} --namespace pullpass${values ? ' --values - < values.yaml' : ''}`
  return steps.command(line, async () => {
    const { code, stdout, stderr } = await sandbox.helm(command.split(' '), values)
    if (code !== 0) throw new Error(`helm ${command}: ${stderr}`)
    return (stderr + stdout).trim()
  })
}

/** Certificates are long and not readable. */
function abridged(values: Values): Values {
  const ca = values.environmentCa as { pem: string }
  return { ...values, environmentCa: { pem: `${ca.pem.slice(0, 60).replaceAll('\n', ' ')}...` } }
}
