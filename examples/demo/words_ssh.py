"""What the demo says of push mode, in English and in Japanese."""

from __future__ import annotations

from typing import Final

#: Name of a text → (English, Japanese).
SSH_WORDS: Final[dict[str, tuple[str, str]]] = {
    "ssh_title": (
        "sekisho: one workflow, one site, ssh between them, no broker   ({place})",
        "関所 (sekisho): ワークフロー側と拠点を SSH で直結、中継サーバーなし   ({place})",
    ),
    "ssh_missing": (
        "not installed: {programs}\n"
        "  Debian, Ubuntu: sudo apt-get install --no-install-recommends openssh-server rsync\n"
        "  The demo starts a server of its own on a free port of this machine only.",
        "インストールされていません: {programs}\n"
        "  Debian、Ubuntu: sudo apt-get install --no-install-recommends openssh-server rsync\n"
        "  デモは専用のサーバーを、このマシンだけから届く空きポートで動かします。",
    ),
    "ssh_site": (
        "The site keeps its secrets, writes its manifest, and binds the author's key to a gate",
        "拠点には秘匿データがあり、登録簿を書き、依頼者の鍵を関所に結び付けます",
    ),
    "key_bound": (
        "the key of {user} starts the gate and nothing else",
        "{user} の鍵で始まるのは関所だけです",
    ),
    "way_checked": ("the way to the site works", "拠点への経路は正常です"),
    "ssh_timing": ("{total:.2f} s in all", "全体 {total:.2f} 秒"),
    "one_login": (
        "all of this took {logins} login",
        "ここまでのログインは {logins} 回です",
    ),
    "ssh_cut": ("The line breaks while the site computes", "計算の途中で接続が切れます"),
    "cut_survived": (
        "the computation went on, started once; came back: {files}",
        "計算は続き、起動は 1 回だけ。返ってきたファイル: {files}",
    ),
    "ssh_key": ("What else can the key do?", "その鍵でほかに何ができるか"),
    "key_shell": ("no command of the author's is run", "依頼者のコマンドは動きません"),
    "key_copy": ("no file is copied", "ファイルはコピーできません"),
    "key_forward": ("no port is reached through it", "その先のポートには届きません"),
    "ssh_no_leak": (
        "no secret in {files} files ({size} bytes) of the author's: results, notes, settings",
        "依頼者側の {files} ファイル ({size} バイト: 結果、控え、設定) に秘匿データはありません",
    ),
    "found_result": (
        "the same search finds {file}, which was allowed, among the results",
        "同じ検索で、搬出許可済みの {file} は結果の中に見つかります",
    ),
    "ssh_port_found": (
        "the same look finds the port {port} of the host's sshd, which was there before",
        "同じ調査で、もとからある sshd のポート {port} は見つかります",
    ),
    "ssh_bare": (
        "A host without a gate: an agreed program, a plain key, everything comes back",
        "関所のないホスト: 約束したプログラム、普通の鍵、すべてが返る",
    ),
    "bare_all": (
        "all {files} files that the program left came back, the solver's deck too",
        "プログラムが残した {files} ファイルがすべて返りました (解析入力ファイルも含む)",
    ),
    "bare_bound": (
        "a program that was not agreed on: refused ({code}, status {status})",
        "約束していないプログラム: 拒否 ({code}、終了コード {status})",
    ),
    "bare_word": (
        "a parameter with a shell command in it is one argument, "
        "which the program rejects (status {status})",
        "シェルのコマンドを混ぜたパラメータは一つの引数のままで、"
        "プログラムが受け付けません (終了コード {status})",
    ),
    "bare_found": (
        "the same search finds the secrets in what came back: here the program must remove them",
        "同じ検索で、返ったファイルの中に秘匿データが見つかります。ここではプログラムが消す約束です",
    ),
    "ssh_stopped": (
        "sshd ended by itself within {seconds:.1f} s of being asked to",
        "sshd は {seconds:.1f} 秒で正常に終了しました",
    ),
    "carrier_waits": (
        "the process that carries gated jobs waits 20 s for another one, and leaves by itself",
        "関所側で実行を担うプロセスは、次のジョブを20秒待ってから自分で終わります",
    ),
    "plain_key": (
        "the same attempts with this plain key succeed: command, copy, port",
        "同じ試みは、普通の鍵ではすべて成功します (コマンド、コピー、ポート)",
    ),
}
