"""Rules from an xDS server (CONFIG_TYPE=GRPC_XDS_SOTW), as Envoy Gateway gives them.

source       which server, who asks it, and how it is waited for
resources    what it sends → rule files, which `rules.load` reads like any other
backoff      how long to wait before it is asked again
stream       one stream: what is asked, and which response is answered how
channel      the connection to the server
client       streams, one after another, for as long as the process lives

Rule 1: only `client` and `channel` know gRPC, and they are imported only where the setting says so.
Rule 2: a response holds everything. Rules that fail to load never replace rules that work, however the server behaves.
Rule 3: a server that floods, is silent, sends nonsense or goes away costs little and ends nothing.
"""
