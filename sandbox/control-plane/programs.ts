import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { join } from 'node:path'
import { type RunningProcess, startProcess } from '../processes.ts'
import { AUDIT_POLICY } from './audit.ts'

/** The name of the only real node; its kubelet has the rights of this node. */
export const nodeName = 'sandbox-node'

/** Files, ports and tokens of one control plane. */
export interface Layout {
  folder: string
  ports: { etcd: number; etcdPeer: number; apiserver: number }
  /** Bearer tokens: of two members of system:masters, of the kubelet, and of the scheduler. */
  tokens: { administrator: string; controllerManager: string; kubelet: string; scheduler: string }
  url: string
  /** The API server writes its certificate here, followed by its CA. */
  caFile: string
  auditFile: string
  /** The unix socket at which the API server asks for the way to a Service (see node/network.ts). */
  egressSocket: string
  file(name: string): string
}

/** Writes the files that the programs read when they start. */
export function layOut(folder: string, ports: Layout['ports']): Layout {
  const file = (name: string) => join(folder, name)
  const tokens = {
    administrator: randomUUID(),
    controllerManager: randomUUID(),
    kubelet: randomUUID(),
    scheduler: randomUUID(),
  }
  const users = [
    `${tokens.administrator},administrator,1,"system:masters"`,
    `${tokens.controllerManager},system:kube-controller-manager,2,"system:masters"`,
    `${tokens.kubelet},system:node:${nodeName},3,"system:nodes"`,
    `${tokens.scheduler},system:kube-scheduler,4`,
  ]
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  writeFileSync(file('tokens.csv'), users.join('\n'))
  writeFileSync(file('audit-policy.json'), JSON.stringify(AUDIT_POLICY))
  writeFileSync(file('egress.json'), egressSettings(file('egress.sock')))
  writeFileSync(file('service-accounts.key'), privateKey.export({ type: 'sec1', format: 'pem' }))
  return {
    folder,
    ports,
    tokens,
    url: `https://127.0.0.1:${ports.apiserver}`,
    caFile: file('apiserver.crt'),
    auditFile: file('audit.jsonl'),
    egressSocket: file('egress.sock'),
    file,
  }
}

/** Makes the API server ask at this socket for the way to Services and nodes. */
function egressSettings(socket: string): string {
  const transport = { uds: { udsName: socket } }
  const connection = { proxyProtocol: 'HTTPConnect', transport }
  return JSON.stringify({
    apiVersion: 'apiserver.k8s.io/v1beta1',
    kind: 'EgressSelectorConfiguration',
    egressSelections: [{ name: 'cluster', connection }],
  })
}

/** Without fsync: the data need not survive a crash of the machine. */
export async function startEtcd(command: string, { file, ports }: Layout): Promise<RunningProcess> {
  const client = `http://127.0.0.1:${ports.etcd}`
  const peer = `http://127.0.0.1:${ports.etcdPeer}`
  return startProcess({
    name: 'etcd',
    command,
    args: [
      `--data-dir=${file('etcd')}`,
      '--unsafe-no-fsync',
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=default=${peer}`,
    ],
    outputFile: file('etcd.log'),
    ready: etcd => etcd.output().includes('ready to serve client requests'),
  })
}

/** Resolves when /readyz is ok and the namespace `default` is there. */
export async function startApiserver(command: string, layout: Layout): Promise<RunningProcess> {
  const { file, ports, auditFile, folder } = layout
  return startProcess({
    name: 'kube-apiserver',
    command,
    args: [
      `--etcd-servers=http://127.0.0.1:${ports.etcd}`,
      '--bind-address=127.0.0.1',
      `--secure-port=${ports.apiserver}`,
      // It signs a certificate for 127.0.0.1 itself.
      `--cert-dir=${folder}`,
      '--authorization-mode=Node,RBAC',
      '--enable-admission-plugins=NodeRestriction',
      '--kubelet-preferred-address-types=InternalIP',
      `--token-auth-file=${file('tokens.csv')}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${file('service-accounts.key')}`,
      `--service-account-signing-key-file=${file('service-accounts.key')}`,
      '--service-cluster-ip-range=10.0.0.0/24',
      // No endpoints for the Service `kubernetes`: no route leads to it, and the machine needs no
      // address except 127.0.0.1.
      '--advertise-address=127.0.0.1',
      '--endpoint-reconciler-type=none',
      '--allow-privileged=true',
      `--audit-policy-file=${file('audit-policy.json')}`,
      `--audit-log-path=${auditFile}`,
      `--egress-selector-config-file=${file('egress.json')}`,
    ],
    // It collects garbage less often: memory is there, and it starts with a tenth less CPU time.
    env: { ...process.env, GOGC: '400' },
    outputFile: file('kube-apiserver.log'),
    ready: async () =>
      (await answers(layout, '/readyz')) && answers(layout, '/api/v1/namespaces/default'),
  })
}

/** Resolves when the ServiceAccount `default` is there. */
export async function startControllerManager(
  command: string,
  layout: Layout,
  kubeconfig: string,
): Promise<RunningProcess> {
  return startProcess({
    name: 'kube-controller-manager',
    command,
    args: [
      `--kubeconfig=${kubeconfig}`,
      `--root-ca-file=${layout.caFile}`,
      `--service-account-private-key-file=${layout.file('service-accounts.key')}`,
      '--leader-elect=false',
      // Nobody here needs its server.
      '--secure-port=0',
      '--kube-api-qps=200',
      '--kube-api-burst=400',
    ],
    outputFile: layout.file('kube-controller-manager.log'),
    ready: () => answers(layout, '/api/v1/namespaces/default/serviceaccounts/default'),
  })
}

/** Whether the API server answers this path with 200; false also if it is down. */
async function answers({ url, caFile, tokens }: Layout, path: string): Promise<boolean> {
  return new Promise(resolve => {
    const no = () => resolve(false)
    try {
      const headers = { authorization: `Bearer ${tokens.administrator}` }
      const options = { ca: readFileSync(caFile), headers, agent: false, timeout: 5000 }
      const asked = request(url + path, options, response => {
        response.resume()
        response.on('close', () => resolve(response.statusCode === 200))
      })
      asked
        .on('timeout', () => asked.destroy())
        .on('error', no)
        .end()
    } catch {
      // The certificate is not written yet.
      no()
    }
  })
}
