import { ProxyAgent, request } from 'undici'
import {
  type BluemixEnvironment,
  startBluemixEnvironment,
} from '../../sandbox/bluemix/environment.ts'

export interface Reply {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: bodies of many shapes, compared field by field
  json: any
}

export interface Wish {
  method?: string
  headers?: Record<string, string>
  form?: Record<string, string>
  body?: string
}

export interface Caller {
  environment: BluemixEnvironment
  call(host: keyof BluemixEnvironment['hosts'], path: string, wish?: Wish): Promise<Reply>
  login(form: Record<string, string>, headers?: Record<string, string>): Promise<Reply>
  accessToken(): Promise<string>
  /** A request to the token API as the default user, by default for `acme`. */
  tokens(method: string, rest?: string, headers?: Record<string, string>): Promise<Reply>
  mint(query?: string): Promise<string>
}

interface Teardown {
  teardown(end: () => Promise<void>): void
}

export const basic = (user: string, password: string) =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`

export const loginPath = '/UAALoginServerWAR/oauth/token'

/** An environment, and a plain client that reaches it by name, through the gateway. */
export async function startCaller(t: Teardown): Promise<Caller> {
  const environment = await startBluemixEnvironment()
  t.teardown(environment.stop)
  return reachEnvironment(t, environment)
}

/** The same client, for an existing environment. */
export function reachEnvironment(t: Teardown, environment: BluemixEnvironment): Caller {
  const dispatcher = new ProxyAgent({
    uri: environment.gateway,
    requestTls: { ca: environment.ca },
  })
  t.teardown(() => dispatcher.destroy())
  const call: Caller['call'] = async (host, path, wish = {}) => {
    const form = wish.form && new URLSearchParams(wish.form).toString()
    const type = form === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }
    const response = await request(`https://${environment.hosts[host]}${path}`, {
      dispatcher,
      method: (wish.method ?? (form === undefined ? 'GET' : 'POST')) as 'GET',
      headers: { ...type, ...wish.headers },
      body: form ?? wish.body ?? null,
    })
    const text = await response.body.text()
    const json = /^\s*[{[]/.test(text) ? JSON.parse(text) : undefined
    return { status: response.statusCode, headers: response.headers, text, json }
  }
  const login: Caller['login'] = (form, headers) =>
    call('login', loginPath, { form, headers: { authorization: basic('cf', ''), ...headers } })
  const accessToken = async () => {
    const form = { grant_type: 'password', username: 'apikey', password: environment.apiKey }
    return String((await login({ ...form, scope: '' })).json.access_token)
  }
  const tokens: Caller['tokens'] = async (method, rest = '', headers = {}) => {
    const authorization = headers.authorization ?? `Bearer ${await accessToken()}`
    const organization = environment.organization('acme').guid
    const all = { organization, ...headers, authorization }
    return call('registry', `/api/v1/tokens${rest}`, { method, headers: all })
  }
  const mint = async (query = '?permanent=true') => String((await tokens('POST', query)).json.token)
  return { environment, call, login, accessToken, tokens, mint }
}
