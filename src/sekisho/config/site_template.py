"""The files that a new site begins with, written for the people who will read them.

They work as they are: the manifest serves nobody until `site join` or its owner names submitters.
A test takes the marks off the second example and finds every key of the manifest in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

#: The name of a site that has none yet: `site join` puts the right one in its place.
UNNAMED: Final = "unnamed-site"
_NOBODY: Final = re.compile(r"^submitters = \[\]", re.MULTILINE)
_UNNAMED: Final = re.compile(rf'^site = "{UNNAMED}"', re.MULTILINE)

AGENT: Final = """\
# The agent's settings. Paths are relative to this file's directory.
# エージェントの設定。パスはこのファイルのあるディレクトリからの相対パスです。
# SEKISHO_<SECTION>__<KEY> in the environment overrides a value: SEKISHO_LOG__LEVEL=debug
# 環境変数 SEKISHO_<節>__<キー> で値を上書きできます。

[broker]
# Where the broker is; a path prefix may follow. / 中継サーバーの URL(パスを付けてもよい)
url = @url@
# This site's credential, in a file that only its owner may read; `sekisho site join` writes it.
# この拠点の認証情報。所有者だけが読めるファイルで、`sekisho site join` が作ります。
token_file = "token"
# Authorities that may vouch for the broker, instead of the system's. Verification is never off.
# 中継サーバーの証明書を認める認証局(PEM)。省略時はシステムの設定。検証は無効にできません。
@ca@
# A proxy; without this line https_proxy and no_proxy are obeyed.
# プロキシ。省略時は環境変数 https_proxy と no_proxy に従います。
# proxy = "http://proxy.example:3128"
# Use no more than this for files, each way, in Mbit/s. / ファイル転送の上限(片方向、Mbit/s)
# max_mbit_s = 100

[site]
manifest = "manifest.toml"
# Work directories: on a local disk with room.
# 作業ディレクトリの置き場所(容量のあるローカルディスク)
work_base = "work"
# What the agent must remember; never on a disk that is emptied. / エージェントの記録。消さないこと
state_dir = "state"
# How much of what submitters sent is kept for their next jobs. / 次の計算のために残す入力の量
# cache_bytes = 2147483648

[log]
level = "info"
# auto: lines for people on a terminal, JSON otherwise. / auto: 端末では人向け、それ以外は JSON
format = "auto"
"""

MANIFEST: Final = """\
# The manifest (登録簿): this site's own word on what may run here, and what may leave.
# この拠点で何を実行してよいか、何を外に出してよいかを、拠点自身が決めるファイルです。
# What is not written here is refused. Changes count at once, a faulty file changes nothing.
# ここに書かれていないことはすべて拒否されます。変更はすぐに有効になり、誤りのある間は前の内容が
# 使われます。 Check it with / 確認方法: sekisho site check

schema = 1
# This site's name at the broker. / 中継サーバーでのこの拠点の名前
site = @site@
# The users whose jobs are taken; an empty list serves nobody.
# 計算を引き受ける依頼者。空なら誰からも引き受けません。
submitters = @submitters@
# How many jobs may be in hand at once. / 同時に引き受ける計算の数
max_running = 4

# A harmless example, ready to be tried. / そのまま試せる無害な例
[[command]]
name = "hello"
# The program by its absolute path, then one list element per argument. There is no shell.
# プログラムは絶対パス、以下は引数を一つずつ。シェルは使われません。
argv = ["/bin/echo", "Hello,", "{name}"]
time_limit_s = 60
description = { en = "Says hello.", ja = "あいさつを返します。" }
# Whether what the command prints may leave. / 標準出力を外に出してよいか
stdout = { release = true }

[command.parameters.name]
type = "text"
pattern = "[A-Za-z]{1,20}"
default = "World"

# A realistic example: take the first `# ` of each line away, and adapt it.
# 実用的な例: 各行の先頭の `# ` を取り、書き換えてお使いください。
#
# [[command]]
# name = "notch-analysis"
# # A list inside of argv is left out as a whole when a parameter in it has no value.
# # argv の中のリストは、その中のパラメータに値がないとき、まとめて省かれます。
# argv = [
#   "/opt/solver/bin/solve", "--case", "{case}", "--load", "{load}",
#   ["--steps", "{steps}"], ["--label", "{label}"], "{refine}",
# ]
# # Longest run; then it is stopped whole. / 実行時間の上限(秒)。過ぎると全体を止めます
# time_limit_s = 7200
# description = { en = "Stress around a notch.", ja = "切欠き周りの応力解析" }
# # Of this command at once. / このコマンドの同時実行数
# max_running = 2
# # true only if running it twice does no harm: it may then be started again after a breakdown.
# # 二度実行しても害がない場合だけ true。障害の後に再実行されることがあります。
# idempotent = false
# # How long work directories are kept for finding faults. / 作業ディレクトリを残す日数
# retention_days = 30
# # Fewer than the site's. / このコマンドに限った依頼者
# submitters = ["tanaka"]
# # false: switched off. / false で停止
# enabled = true
# # What old MInt programs call it, exactly. / 旧 MInt プログラムでのコマンド文字列(完全一致)
# mint_command = "/opt/solver/bin/solve"
# # What starts it (local: this machine), and where. / 起動方法(省略時はこの計算機)とホスト
# scheduler = "cluster"
# host = "local"
# # A program that exits with 0 when a licence is free; until then the job waits here.
# # ライセンスが空いていれば 0 で終わるプログラム。空くまで計算は拠点で待ちます。
# licence = ["/opt/solver/bin/licence-free"]
# # Done on its host before it, and after it when it ended well, once each.
# # 同じホストで、コマンドの前と、正常終了した後に 1 回ずつ行います。
# before = { argv = ["/opt/solver/bin/mesh"], time_limit_s = 600 }
# after = { argv = ["/opt/solver/bin/table"], time_limit_s = 600 }
#
# # Of all names that leave together: a program can write anything into names, too. A run that
# # leaves thousands of files may need more; the site's log then says how much (name_bytes).
# # 搬出するファイル名の合計。名前にも何でも書けるため上限があります。数千のファイルを出すなら
# # 上げてください。必要な値は拠点の記録にあります (name_bytes)。
# max_output_name_bytes = "64 KiB"
#
# # What the solver prints may name secrets: it stays here. / 出力には機密が含まれうるため出しません
# stdout = { release = false }
# # The last bytes of it, if it may. / 出す場合の末尾のバイト数
# stderr = { release = false, max_bytes = "64 KiB" }
#
# # What may be seen while it runs (left out: nothing). progress: a file with a number, 0 to 100.
# # 計算中に見せてよいもの(省略時はなし)。progress は 0 から 100 の数を書くファイルです。
# [command.publish]
# every_s = 30
# progress = "progress.txt"
#
# [[command.publish.file]]
# path = "residuals.csv"
# max_bytes = "64 KiB"
#
# # What is asked of the batch system; a parameter may choose, within these bounds.
# # バッチシステムに要求する資源。範囲内でパラメータに選ばせることもできます。
# [command.resources]
# queue = "normal"
# cpus = { parameter = "steps", max = 32 }
# memory = "16 GiB"
# # 1 つの計算で何度も実行する場合(ジョブ配列)。番号は環境変数 SEKISHO_ELEMENT に入ります。
# # For a sweep, as one job array: each element finds its number in SEKISHO_ELEMENT.
# array = { elements = { parameter = "steps", max = 100 }, at_once = 10 }
#
# # 一つの計算が使える資源の上限(省略可)。
# # What one run may use at most (may be left out). max_file_bytes bounds every single file.
# [command.limits]
# max_file_bytes = "20 GiB"
# max_open_files = 1024
# max_processes = 512
#
# # 計算が触れられる範囲(Linux の Landlock)。書いた場所と作業ディレクトリ、システムの
# # プログラム以外は読めず、通信もできません。この表がなければ制限しません。
# # What the run may reach, held by the kernel (Landlock): besides the work directory and the
# # system's programs only what is listed, and no network. Without this table: no such limit.
# [command.sandbox]
# read = ["/opt/solver", "/srv/secret/meshes"]
# write = []
# network = false
# connect = [27000]        # TCP ports, such as a licence server's / 接続してよい TCP ポート
#
# # The whole environment, besides PATH and CALC_DIR (the work directory).
# # 環境変数。PATH と CALC_DIR(作業ディレクトリ)以外はここに書いたものだけです。
# [command.environment]
# LICENSE_FILE = "/opt/solver/license.dat"
# SCRATCH = "{CALC_DIR}/scratch"
#
# # A parameter is typed and bounded. / パラメータには型と範囲があります
# [command.parameters.case]
# type = "choice"
# values = ["static", "cyclic"]
# default = "static"
#
# [command.parameters.load]
# type = "number"
# minimum = 0.0
# maximum = 1000.0
#
# [command.parameters.steps]
# type = "integer"
# minimum = 1
# maximum = 200
#
# [command.parameters.label]
# type = "text"
# pattern = "[A-Za-z0-9_-]{1,20}"
# max_length = 20
# # Whether a value may begin with "-". / 値が "-" で始まってよいか
# leading_dash = false
#
# # A switch: this argument, or none. / スイッチ: この引数を付けるか付けないか
# [command.parameters.refine]
# type = "boolean"
# flag = "--refine"
# default = false
#
# # Files that may come in: "*" is any name, "**" any folders. / 受け入れる入力ファイル
# [[command.input]]
# path = "properties/*.txt"
# max_bytes = "1 MiB"
# max_files = 20
# required = true
# # true if the command does not change it: jobs then share one copy of a large file.
# # コマンドが書き換えない入力は true。大きなファイルを計算の間で共有します。
# read_only = false
#
# # Files that may leave, if they are asked for. Everything else stays.
# # 要求されたときに外に出してよいファイル。他は出ません。
# [[command.output]]
# path = "result/stress*.csv"
# max_bytes = "100 MiB"
# max_files = 10
# # Without it the job has failed. / なければ異常終了とします
# required = true
#
# # A batch system: slurm, pbs, torque, sge or pjsub; its commands, if they have other names.
# # バッチシステム。コマンド名が標準と違うときだけ submit などを書きます。
# [scheduler.cluster]
# dialect = "pbs"
# submit = ["qsub2"]
"""


def agent_text(*, url: str, ca_file: str | None) -> str:
    """Return the agent's settings for the broker at ``url``."""
    ca = '# ca_file = "ca.pem"' if ca_file is None else f"ca_file = {_quoted(ca_file)}"
    return AGENT.replace("@url@", _quoted(url)).replace("@ca@", ca)


def manifest_text(*, site: str | None, submitters: Iterable[str]) -> str:
    """Return the manifest of a new site."""
    text = MANIFEST.replace("@site@", _quoted(site or UNNAMED))
    return text.replace("@submitters@", _listed(submitters))


def with_submitters(text: str, submitters: Iterable[str]) -> str:
    """Return the manifest ``text`` with ``submitters`` where it still serves nobody."""
    return _NOBODY.sub(lambda _: f"submitters = {_listed(submitters)}", text, count=1)


def with_site(text: str, site: str) -> str:
    """Return the manifest ``text`` with ``site`` where it still has no name."""
    return _UNNAMED.sub(lambda _: f"site = {_quoted(site)}", text, count=1)


def _listed(names: Iterable[str]) -> str:
    return f"[{', '.join(_quoted(name) for name in sorted(names))}]"


def _quoted(text: str) -> str:
    """Return ``text`` as a TOML string."""
    return json.dumps(text, ensure_ascii=False)
