import { stringify } from 'yaml'
import { type Crowd, startCrowd } from '../crowd.ts'
import type { HelmSandbox, Values } from '../helm.ts'
import { obstacleToExec } from '../node/exec.ts'
import { say, showProgress } from './progress.ts'
import type { Scene } from './scene.ts'
import { image, tellStory } from './story.ts'

interface Stage {
  scene: Scene
  sandbox: HelmSandbox
}

/** The same demo with the chart, from its installation to its removal. */
export async function tellChartStory(stage: Stage, keep: boolean): Promise<void> {
  const { scene, sandbox } = stage
  await install(stage)
  await tellStory(scene)
  await test(stage)
  scene.chapter('From now on, ten pods a second are created in a labelled namespace')
  await scene.kubectl('create namespace busy')
  await scene.kubectl('label namespace busy pullpass.io/inject=enabled')
  const { controlPlane } = sandbox
  const crowd = startCrowd({ controlPlane, namespace: 'busy', image, perSecond: 10 })
  try {
    await upgrade(stage, crowd)
    await takeBack(stage)
    if (!keep) await uninstall(stage, crowd)
  } finally {
    await crowd.stop()
  }
}

async function install({ scene, sandbox }: Stage): Promise<void> {
  scene.chapter('The chart is installed')
  const values = sandbox.values()
  await scene.command('cat values.yaml', async () => stringify(abridged(values)).trimEnd())
  await helm({ scene, sandbox }, 'install pullpass charts/pullpass --wait', values)
  await scene.kubectl('get pods -n pullpass')
  const ready = await scene.kubectl(
    'get deployment pullpass -n pullpass -o jsonpath={.status.readyReplicas}',
  )
  scene.expect(ready === '2', 'two replicas are ready')
}

async function test({ scene, sandbox }: Stage): Promise<void> {
  scene.chapter('helm test asks for a pod with dryRun, on the real path')
  const said = await helm({ scene, sandbox }, 'test pullpass')
  scene.expect(said.includes('names pullpass-registry'), 'the pod has the reference')
}

async function upgrade({ scene, sandbox }: Stage, crowd: Crowd): Promise<void> {
  scene.chapter('A setting is changed: both replicas are replaced')
  const before = await sandbox.pods()
  const change = '--reuse-values --set controller.concurrency=8 --wait'
  await helm({ scene, sandbox }, `upgrade pullpass charts/pullpass ${change}`)
  const after = (await sandbox.pods()).map(({ metadata }) => metadata?.name)
  const replaced = before.every(({ metadata }) => !after.includes(metadata?.name))
  scene.expect(replaced, `${after.join(' and ')} are new`)
  const { created, refused, withoutReference } = await crowd.count()
  scene.expect(refused.length === 0, `none of ${created} pods was refused`)
  scene.expect(withoutReference.length === 0, 'and each one names the Secret')
}

async function takeBack({ scene, sandbox }: Stage): Promise<void> {
  const { environment } = sandbox
  scene.chapter('A namespace loses its label, and its token and Secret are removed at once')
  const obstacle = obstacleToExec()
  if (obstacle !== undefined) return say(`skipped: ${obstacle}`)
  await scene.kubectl('label namespace elsewhere pullpass.io/inject-')
  const cleanUp = 'node /app/pullpass.mjs clean-up --config /etc/pullpass/config/config.yaml'
  const said = await scene.kubectl(`exec -n pullpass deploy/pullpass -- ${cleanUp}`)
  scene.expect(said.includes('elsewhere: token revoked, Secret deleted'), 'it is done')
  const live = environment.ledger.liveTokens().filter(({ description }) => {
    return description.endsWith('/elsewhere')
  })
  scene.expect(live.length === 0, 'the environment has no token for it any more')
}

async function uninstall({ scene, sandbox }: Stage, crowd: Crowd): Promise<void> {
  scene.chapter('The release is uninstalled')
  await helm({ scene, sandbox }, 'uninstall pullpass --wait')
  await scene.kubectl('wait pods -n pullpass --all --for=delete --timeout=60s')
  await showProgress('stopping the pods', crowd.stop)
  const { created, refused } = await crowd.count()
  scene.expect(refused.length === 0, `none of ${created} pods was refused until the end`)
  const left = await scene.kubectl(`get ${KINDS} -A -l app.kubernetes.io/instance=pullpass -o name`)
  scene.expect(left === '', 'nothing that Helm installed is left')
  const kept = await scene.kubectl('get secrets,leases -n pullpass -o name')
  scene.expect(kept === KEPT, 'its namespace keeps the CA, the Lease and your credentials')
  const secrets = await scene.kubectl('get secrets -A -l app.kubernetes.io/managed-by=pullpass')
  const stay = ['shop', 'busy'].every(name => secrets.includes(`${name} `))
  scene.expect(stay, 'and labelled namespaces keep their Secrets: their pods can still pull')
}

const KINDS = [
  ...['deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,jobs,roles'],
  ...['rolebindings,clusterroles,clusterrolebindings,mutatingwebhookconfigurations'],
].join(',')
const KEPT = ['secret/bluemix', 'secret/pullpass-ca', 'lease.coordination.k8s.io/pullpass'].join(
  '\n',
)

async function helm({ scene, sandbox }: Stage, command: string, values?: Values): Promise<string> {
  const line = `helm ${command} --namespace pullpass${values ? ' --values - < values.yaml' : ''}`
  return scene.command(line, async () => {
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
