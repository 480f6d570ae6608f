#!/usr/bin/env perl
# Clients of every kind at once, all at random: sound and broken requests, cut,
# pipelined, chunked and trickled, answers read slowly, partly or not at all,
# HTTP/2 with tiny windows and resets.  Whatever they do, no worker dies, no
# slot and no block stays behind, and the next client is served as the first.
#
# LLM_SEED repeats a run's choices (not its timing), LLM_SECONDS sets its length.
# An nginx under AddressSanitizer is taken where tests/asan-nginx.sh has left one.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use LLM;
use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $asan = LLM->build . '/asan-nginx-bookworm/nginx';
$ENV{LLM_NGINX} //= $asan if -x $asan;
diag($ENV{LLM_NGINX} ? "nginx: $ENV{LLM_NGINX}" : 'nginx: no AddressSanitizer here');
my $seed = $ENV{LLM_SEED} // $$ ^ time;
my $seconds = $ENV{LLM_SECONDS} // 60;
diag("LLM_SEED=$seed");

my $h2c = LLM->free_port;
my $beside = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 99) or die $!; # silent
my $t = LLM->new(workers => 2, listen => 'sndbuf=8k',
    engine => [qw(--device null --model_name m --context 4096 --kv_memory 64m
        --step_min 1ms --requests 48 --slots 24 --submit_ring 256k --event_ring 256k)],
    conf => 'client_body_timeout 1s; client_header_timeout 1s; send_timeout 1s;
        client_body_buffer_size 1k; keepalive_requests 20; lingering_timeout 200ms;
        lingering_time 500ms; llm_body_buffer_size 64k;
        llm_request_id $http_x_request_id;',
    server => <<"CONF");
        listen 127.0.0.1:$h2c http2 sndbuf=8k;
        location /ignore/ { llm_pass main; llm_ignore_client_abort on; }
        location /small/ { llm_pass main; llm_output_buffer 1k; llm_ping_interval 10ms; }
        location /limit/ { llm_pass main; limit_rate 4k; }
        location /hurry/ {
            llm_pass main;
            llm_first_token_timeout 3ms;
            llm_token_timeout 3ms;
            llm_request_timeout 40ms;
        }
        location /after/ { llm_pass main; post_action /beside; }
        location = /beside {
            internal;
            proxy_pass http://127.0.0.1:@{[ $beside->sockport ]};
            proxy_connect_timeout 200ms;
            proxy_read_timeout 200ms;
        }
        location /gzip/ { llm_pass main; gzip on; gzip_types *; gzip_proxied any; }
CONF

# --- what is asked for
sub one { $_[rand @_] }
sub chance { rand() < $_[0] }

sub path {
    my $at = one('/v1', '/v1', qw(/ignore /small /limit /hurry /after /gzip));
    return one("$at/completions", "$at/completions", "$at/chat/completions",
        "$at/chat/completions", "$at/models", "$at/models/m", "$at/none", '/status');
}

sub fields {
    my ($path) = @_;
    my %b = (model => chance(0.95) ? 'm' : one('x', "a\r\nb", '', 7),
        max_tokens => int one(1, 2 + rand 20, 20 + rand 400, 3000));
    if ($path =~ /chat/) {
        $b{messages} = [map { { role => 'user', content => 'x ' x rand 200 } } 0 .. rand 3];
        $b{logprobs} = JSON::PP::true if chance(0.3);
        $b{top_logprobs} = int rand 6 if $b{logprobs} && chance(0.5);
    } else {
        $b{prompt} = one('x', 'y ' x rand 6000, [1 .. 1 + rand 30], ['a', 'b'], '');
        $b{logprobs} = int rand 6 if chance(0.3);
    }
    $b{stream} = JSON::PP::true if chance(0.7);
    $b{stream_options} = { include_usage => JSON::PP::true } if chance(0.2);
    $b{n} = 1 + int rand 5 if chance(0.2);
    $b{stop} = one('e', ['zz', 'qq'], '') if chance(0.1);
    $b{temperature} = one(0, 1.5, 9, 'hot', 1e300) if chance(0.2);
    $b{one(qw(user tools seed echo))} = one(1, 'x', [], {}, JSON::PP::null) if chance(0.1);
    return \%b;
}

sub body {
    my $json = LLM->encode(fields(@_));
    return $json if chance(0.75);
    return one('', '{', 'null', "\0", '[' x 300, '1e999', '[' . '[],' x 20000 . '1]',
        '"' . '\\u0000' x 100 . '"', "{\"model\":\"m\",\"prompt\":\"\xff\"}",
        '{"a":' . '9' x 400 . '}', ' ' x 70000) if chance(0.3);
    substr $json, rand length $json, 1 + rand 3, join '', map { chr rand 256 } 0 .. rand 3
        for 0 .. rand 3;
    return $json;
}

sub chunked {
    my ($body) = @_;
    my $text = '';
    while (length $body) {
        my $piece = substr $body, 0, 1 + rand one(3, 100, 4000), '';
        $text .= sprintf "%x%s\r\n%s\r\n", length $piece, one('', '', ';a=b'), $piece;
    }
    return $text . one("0\r\n\r\n", "0\r\n\r\n", "0\r\nA: b\r\n\r\n", '', "zz\r\n");
}

sub request {
    my $path = path();
    my $body = body($path);
    my $method = $path =~ /completions/ ? 'POST' : 'GET';
    $method = one(qw(GET POST HEAD PUT OPTIONS)) if chance(0.05);
    my %h = (Connection => one(qw(keep-alive keep-alive close)));
    $h{'X-Request-Id'} = one('abc', 'a b"c', 'i' x 300, "\xff\x01", '') if chance(0.3);
    $h{Expect} = '100-continue' if chance(0.05);
    if (chance(0.3)) {
        $h{'Transfer-Encoding'} = 'chunked';
        $body = chunked($body);
    } elsif (chance(0.05)) {
        $h{'Content-Length'} = one(0, 5, 9 * length $body, '99999999999', '-1', 'x');
    }
    my $text = $t->request_text($method, $path, $method =~ /GET|HEAD/ ? undef : $body, %h);
    $text =~ s{HTTP/1.1}{HTTP/1.0} if chance(0.05);
    return $text;
}

# --- how it is said
my %count;

sub send_all { # in pieces; 0 when the other side has closed
    my ($s, $text) = @_;
    my $slow = chance(0.3);
    while (length $text) {
        my $n = syswrite $s, $text, $slow ? 1 + rand 200 : 20000;
        return 0 if !$n;
        substr($text, 0, $n) = '';
        sleep rand 0.004 if $slow;
        return 1 if chance($slow ? 0.005 : 0.01); # and the rest never comes
    }
    return 1;
}

sub leave {
    my ($s) = @_;
    setsockopt $s, Socket::SOL_SOCKET, Socket::SO_LINGER, pack 'ii', 1, 0 if chance(0.3);
    close $s;
}

sub read_some { # 0 at the end, or when it has had enough
    my ($s, $for, $slow, $enough) = @_;
    my ($end, $got) = (time + $for, '');
    while (time < $end && length $got < $enough) {
        IO::Select->new($s)->can_read(0.15) or last;
        sysread $s, $got, $slow ? 1 + rand 2000 : 65536, length $got or last;
        sleep rand 0.01 if $slow;
    }
    $count{$1}++ while $got =~ m{^HTTP/1\.\d (\d\d\d)}mg;
    $count{done}++ while $got =~ /\[DONE\]/g;
    $count{error_event}++ while $got =~ /^data: \{"error"/mg;
    return $got;
}

sub http1 {
    my $s = $t->connect(chance(0.3) ? (rcvbuf => 4096) : ()) or return;
    for (0 .. rand 4) {
        send_all($s, join '', map { request() } 0 .. (chance(0.2) ? rand 5 : 0)) or last;
        shutdown $s, 1 if chance(0.03);
        my $how = rand;
        if ($how < 0.6) {
            read_some($s, one(0.3, 1), 0, 1e9);
        } elsif ($how < 0.75) {
            read_some($s, 2, 1, one(500, 5000, 50000));
        } elsif ($how < 0.85) {
            sleep rand one(0.01, 0.1, 1.5); # not at all
        } else {
            last;
        }
    }
    leave($s);
}

sub frame {
    my ($type, $flags, $stream, $data) = @_;
    return substr(pack('N', length $data), 1) . pack('CCN', $type, $flags, $stream) . $data;
}

sub hpack { my ($s) = @_; return chr(length $s) . $s }

sub http2 { # without TLS, frame by frame
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$h2c") or return;
    my $window = one(0, 1, 100, 5000, 65535, 1_000_000);
    my $text = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . frame(4, 0, 0, pack 'nN', 4, $window);
    my $next = 1;
    for (0 .. rand 25) {
        my $id = 1 + 2 * int rand(($next + 3) / 2);
        my $what = rand;
        if ($what < 0.45) {
            my $path = path();
            my $body = $path =~ /completions/ ? body($path) : '';
            my $head = ($body eq '' ? "\x82" : "\x83") . "\x86\x04" . hpack($path)
                . "\x01" . hpack('localhost');
            $text .= frame(1, $body eq '' ? 5 : 4, $next, $head);
            while (length $body) {
                my $piece = substr $body, 0, 1 + rand one(10, 16000), '';
                $text .= frame(0, length $body || chance(0.05) ? 0 : 1, $next, $piece);
                last if chance(0.02);
            }
            $next += 2;
        } elsif ($what < 0.65) {
            $text .= frame(8, 0, chance(0.4) ? 0 : $id, pack 'N', 1 + rand one(10, 60000));
        } elsif ($what < 0.8) {
            $text .= frame(3, 0, $id, pack 'N', one(0, 8));
        } elsif ($what < 0.85) {
            $text .= frame(6, 0, 0, 'pingpong') . frame(2, 0, $id, pack 'NC', 0, 15);
        } elsif ($what < 0.88) {
            $text .= frame(4, 0, 0, pack 'nN', 4, one(0, 3, 70000));
        } elsif ($what < 0.9) {
            $text .= one(frame(7, 0, 0, "\0" x 8), frame(rand 12, rand 256, $id, 'x' x rand 9));
        } else {
            last if !send_all($s, $text);
            $text = '';
            read_some($s, rand 0.4, chance(0.2), 1e9);
            $count{h2}++;
        }
    }
    send_all($s, $text) and read_some($s, rand 0.5, 0, 1e9) if chance(0.8);
    leave($s);
}

sub tools { # HTTP/2 over TLS as others do it
    my $file = "$t->{dir}/body.$$";
    my $path = path();
    open my $f, '>', $file or die $!;
    print $f body($path);
    close $f;
    my $url = $t->https($path);
    my @cmd = one(
        ['curl', '-sk', '--http2', '-Z', '-d', "\@$file", ($url) x (1 + rand 8)],
        ['curl', '-sk', '--http2', '--limit-rate', '3k', '-d', "\@$file", $url],
        ['nghttp', '-n', '-m', 1 + int rand 20, '-w', 1 + int rand 16, '-d', $file, $url],
        ['h2load', '-n', 40, '-c', 2, '-m', 10, '-w', 3 + int rand 14, '-d', $file, $url]);
    my $pid = fork() // return;
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null';
        exec 'timeout', one(0.05, 0.3, 1, 2), @{ $cmd[0] } or POSIX::_exit(127);
    }
    waitpid $pid, 0;
    $count{tools}++ if $? >> 8 != 127;
}

# --- all of them, for a while
my %ask = (model => 'm', prompt => 'x', max_tokens => 50, temperature => 0);
my $answer = sub { LLM->decode($t->post('/v1/completions', { %ask })->{body})->{choices} };
my $before = $answer->();
my @workers = sort $t->pids;
sub fds { map { scalar(() = glob "/proc/$_/fd/*") } @workers }
my @open = fds();

my @clients = map {
    pipe my $r, my $w or die $!;
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        close $r;
        srand $seed + $_;
        $SIG{PIPE} = 'IGNORE';
        my $end = time + $seconds;
        my $kind = $_ % 4 == 3 ? \&tools : $_ % 4 == 2 ? \&http2 : \&http1;
        $kind->() while time < $end;
        print $w LLM->encode(\%count);
        close $w;
        POSIX::_exit(0);
    }
    close $w;
    { pid => $pid, from => $r };
} 0 .. 23;

my %sum;
for my $c (@clients) {
    my $text = do { local $/; readline $c->{from} };
    waitpid $c->{pid}, 0;
    my $n = eval { LLM->decode($text // '') } // {};
    $sum{$_} += $n->{$_} for keys %$n;
}
diag(LLM->encode(\%sum));

# --- it has been what it should be
ok($t->pool_is_full(20), 'all have ended');
my $s = $t->status->{engines}[0];
diag(join ' ', map { "$_ $s->{$_}" } sort grep { /^requests_|stalls/ } keys %$s);
cmp_ok($sum{$_} // 0, '>', 0, "some: $_")
    for qw(200 400 404 405 413 429 504 done error_event h2 tools);
cmp_ok($s->{$_}, '>', 10, "some: $_") for qw(requests_done requests_cancelled credit_stalls);
my $log = $t->error_log;
like($log, qr/client timed out/, 'some: timed out');
like($log, qr/prematurely closed/, 'some: left');

# --- and nothing of it is left
is($s->{requests_total}, $s->{requests_done} + $s->{requests_failed}
    + $s->{requests_cancelled}, 'each request has ended once');
my %slots;
$t->wait_for(sub {
    my $st = $t->status;
    $slots{ $st->{pid} } = $st->{engines}[0]{worker_slots_used};
    keys %slots == @workers;
}, 10);
is(join(' ', values %slots), '0 0', 'no slot is in use');
is_deeply([sort $t->pids], \@workers, 'no worker has died');
ok($t->wait_for(sub {
    my @now = fds();
    !grep { $now[$_] > $open[$_] } 0 .. $#open;
}, 10), 'no descriptor is left open') or diag("@open, now @{[ fds() ]}");
is_deeply($answer->(), $before, 'served as before');

$t->done;
