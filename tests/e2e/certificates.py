"""Certificates for tests, made with the openssl command, and clients that use
them."""

import datetime
import ssl
import subprocess

import raw_grpc


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True,
                   stdin=subprocess.DEVNULL, capture_output=True)


def _time(days):
    now = datetime.datetime.now(datetime.timezone.utc)
    return (now + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")


class Pair:
    """A certificate and its key."""

    def __init__(self, folder, name):
        self.cert = folder / f"{name}.crt"
        self.key = folder / f"{name}.key"


class Authority(Pair):
    def __init__(self, folder, name):
        super().__init__(folder, name)
        self._folder = folder / f"{name}.ca"
        self._folder.mkdir()
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                 "-subj", f"/CN={name}", "-keyout", self.key, "-out",
                 self.cert)
        (self._folder / "index.txt").touch()
        (self._folder / "ca.conf").write_text(f"""
            [ca]
            default_ca = d
            [d]
            database = {self._folder}/index.txt
            new_certs_dir = {self._folder}
            default_md = sha256
            policy = p
            rand_serial = yes
            unique_subject = no
            [p]
            commonName = supplied
            """)

    def issue(self, name, common_name, hosts="", days=(-1, 7)):
        """`days`: valid from and until, from now; `hosts`: DNS:x,IP:y."""
        pair = Pair(self.cert.parent, name)
        request = self._folder / f"{name}.csr"
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(
            "basicConstraints = CA:FALSE\n"
            + (f"subjectAltName = {hosts}\n" if hosts else ""))
        _openssl("req", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
                 f"/CN={common_name}", "-keyout", pair.key, "-out", request)
        _openssl("ca", "-batch", "-notext", "-config",
                 self._folder / "ca.conf", "-cert", self.cert, "-keyfile",
                 self.key, "-in", request, "-out", pair.cert, "-extfile",
                 extensions, "-startdate", _time(days[0]), "-enddate",
                 _time(days[1]))
        return pair


def encrypt_key(source, target):
    _openssl("pkcs8", "-topk8", "-in", source, "-out", target, "-passout",
             "pass:secret")


def client_flags(authority, pair=None):
    """Returns qkctl's flags to trust `authority` and to present `pair`."""
    shown = ["--tls-cert", pair.cert, "--tls-key", pair.key] if pair else []
    return ["--tls-ca", authority.cert, *shown]


def client_context(authority, pair=None, **settings):
    """Returns an SSLContext that does so; `settings` are its attributes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.cert)
    context.set_alpn_protocols(["h2"])
    if pair:
        context.load_cert_chain(pair.cert, pair.key)
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def old_client_context(authority, pair):
    """A TLS 1.1 client, which OpenSSL's defaults would not allow."""
    context = client_context(authority, pair)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def tls_connect(address, context):
    plain = raw_grpc.connect(address)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except Exception:
        plain.close()
        raise
