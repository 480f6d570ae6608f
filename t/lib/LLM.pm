package LLM;

# The harness of the whole-server tests: an engine and an nginx of one's own
# for each .t, on free ports, under a directory of its own in /tmp (workers
# that dropped root must reach the socket).  Perl's core modules only.
#
#     my $t = LLM->new(engine => [qw(--device null)]);   # starts both
#     my $r = $t->post('/v1/completions', { prompt => 'x' });
#     my $s = $t->stream('/v1/completions', { prompt => 'x' });
#     $s->next_event;
#     $t->done;          # stops both, asserts clean logs and a full block pool
#
# Environment: LLM_BUILD (build), LLM_NGINX (another nginx binary, with the
# module built in), LLM_DATA (../shared/data).

use strict;
use warnings;

use Cwd ();
use File::Copy ();
use File::Path ();
use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;
use Time::HiRes qw(sleep time);

my $root = Cwd::abs_path(__FILE__);
$root =~ s{/t/lib/[^/]+$}{};
my $build = $ENV{LLM_BUILD} // "$root/build";
my $json = JSON::PP->new->utf8->canonical->allow_nonref;

sub root { $root }
sub build { $build }
sub data { my $d = $ENV{LLM_DATA} // "$root/../shared/data"; $d =~ m{^/} ? $d : "$root/$d" }
sub decode { $json->decode($_[-1]) }
sub encode { $json->encode($_[-1]) }

# The model that every clone has, and the name it is served under.
sub demo { "$root/conf/demo/" . demo_name() . '.gguf' }
sub demo_name { 'ngx-llm-demo' }

# What transformers made of it (tests/demo/golden.py).
sub golden {
    my $path = "$root/tests/data/demo/" . demo_name() . '.golden.json';
    open my $f, '<', $path or die "$path: $!";
    local $/;
    return decode(scalar <$f>);
}

# The path of a model under data(), or skips the whole file, visibly.
sub model_or_skip {
    my ($class, $path) = @_;
    my $file = data() . "/models/$path";
    plan skip_all => "no $path in the test data" if !-r $file;
    return $file;
}

sub free_port {
    my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1)
        or die "no free port: $!";
    return $s->sockport;
}

# engine => [options] (undef: none is started), conf => text for http {},
# server => text for server {}, location => text for location /v1/,
# main => text for the main context, workers => n, listen => parameters.
sub new {
    my ($class, %o) = @_;
    my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 0);
    chmod 0755, $dir;
    my $self = bless {
        workers => 2, listen => '', conf => '', server => '', location => '',
        main => '', %o, dir => $dir, port => free_port(), tls => free_port(),
        socket => "$dir/engine.sock", pids => {}, allowed => [], owner => $$,
    }, $class;
    $self->start_engine if $self->{engine};
    $self->start_nginx if !$self->{no_nginx};
    $self->wait_ready if $self->{engine} && !$self->{no_nginx};
    return $self;
}

sub _spawn {
    my ($self, $name, $log, @cmd) = @_;
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $log;
        open STDERR, '>>', $log;
        POSIX::setsid();
        exec @cmd or POSIX::_exit(127);
    }
    $self->{pids}{$name} = $pid;
    return $pid;
}

sub start_engine {
    my ($self, @more) = @_;
    my @group = $> == 0 ? ('--socket_group', 'www-data') : ();
    my $pid = $self->_spawn(engine => "$self->{dir}/engine.log", "$build/llm-engine",
        '--listen', $self->{socket}, '--threads', 1, @group,
        @{ $self->{engine} }, @more);
    my $ended;
    $self->wait_for(sub {
        $ended = waitpid($pid, POSIX::WNOHANG()) == $pid;
        -S $self->{socket} || $ended;
    }, 30);
    -S $self->{socket} && !$ended
        or BAIL_OUT("the engine did not start: " . $self->engine_log);
}

# Writes the configuration and starts nginx; 0 if it exits at once.
sub start_nginx {
    my ($self, $text) = @_;
    $self->write_conf($text);
    my $nginx = $ENV{LLM_NGINX} // '/usr/sbin/nginx';
    # a place where workers that have dropped root can leave a report
    mkdir "$self->{dir}/asan" and chmod 01777, "$self->{dir}/asan";
    local $ENV{ASAN_OPTIONS} = 'detect_leaks=0:detect_odr_violation=0:'
        . "log_path=$self->{dir}/asan/report";
    local $ENV{LD_BIND_NOW} = 1;
    $self->_spawn(nginx => "$self->{dir}/stderr.log", $nginx,
        '-p', $self->{dir}, '-e', "$self->{dir}/error.log",
        '-c', "$self->{dir}/nginx.conf");
    $self->wait_for(sub {
        IO::Socket::INET->new("127.0.0.1:$self->{port}")
            || waitpid($self->{pids}{nginx}, POSIX::WNOHANG()) > 0
    }, 30);
    return !!IO::Socket::INET->new("127.0.0.1:$self->{port}");
}

sub write_conf {
    my ($self, $text) = @_;
    $text //= $self->conf_text;
    open my $f, '>', "$self->{dir}/nginx.conf" or die $!;
    print $f $text;
    close $f;
}

sub certificate {
    my ($self) = @_;
    my $d = $self->{dir};
    return if -s "$d/tls.crt";
    # of a curve: an RSA key would take half a second of each test
    system("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        . " -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
        . " -keyout $d/tls.key -out $d/tls.crt 2>/dev/null") == 0
        or die "openssl failed";
}

# A copy of the page where workers that have dropped root can read it.
sub page {
    my ($self) = @_;
    my $dir = "$self->{dir}/page";
    return $dir if -d $dir;
    mkdir $dir or die "$dir: $!";
    for my $file (glob "$root/conf/page/*") {
        File::Copy::copy($file, $dir) or die "$file: $!";
    }
    chmod 0755, $dir;
    chmod 0644, glob "$dir/*";
    return $dir;
}

# The lines any configuration needs to run in this directory.
sub preamble {
    my ($self) = @_;
    my $load = $ENV{LLM_NGINX} ? '' :
        "load_module $build/nginx/ngx_http_llm_module.so;\n";
    my $user = $> == 0 ? "user www-data;\n" : '';
    $user .= "env ASAN_OPTIONS;\n"; # else lost in an upgrade
    return "${load}${user}daemon off;\npid $self->{dir}/nginx.pid;\n"
        . "error_log $self->{dir}/error.log info;\n";
}

sub temp_paths {
    my ($self) = @_;
    return join '', map { "    ${_}_temp_path $self->{dir}/$_;\n" }
        qw(client_body proxy fastcgi uwsgi scgi);
}

sub conf_text {
    my ($self) = @_;
    $self->certificate;
    return $self->preamble . <<"CONF" . "    }\n}\n";
worker_processes $self->{workers};
$self->{main}
events { worker_connections 2048; }
http {
    access_log $self->{dir}/access.log;
@{[ $self->temp_paths ]}
    llm_engine main {
        server unix:$self->{socket};
        reconnect 50ms 200ms;
    }
$self->{conf}
    server {
        listen 127.0.0.1:$self->{port} $self->{listen};
        listen 127.0.0.1:$self->{tls} ssl http2;
        ssl_certificate $self->{dir}/tls.crt;
        ssl_certificate_key $self->{dir}/tls.key;
$self->{server}
        location /v1/ {
            llm_pass main;
$self->{location}
        }
        location = /health { llm_health live; }
        location = /ready { llm_health ready; }
        location = /status { llm_status json; }
        location = /metrics { llm_status prometheus; }
CONF
}

sub wait_for {
    my ($self, $cond, $timeout) = @_;
    my $end = time + ($timeout // 10);
    my $v;
    until ($v = $cond->()) {
        return 0 if time > $end;
        sleep 0.02;
    }
    return $v;
}

# Until every worker is ready; keep-alive is off, so ask a few times.
sub wait_ready {
    my ($self, $timeout) = @_;
    my $ok = 0;
    $self->wait_for(sub {
        my $ready = $self->get('/ready')->{status} == 200;
        $ok = $ready && $self->attached ? $ok + 1 : 0;
        $ok >= 4;
    }, $timeout // 30) or diag("not ready: " . $self->engine_log);
}

# Do all workers have the engine?  As answers come from whichever worker wakes
# up first, only the log knows.
sub attached {
    my ($self) = @_;
    my $engine = $self->{pids}{engine};
    my @workers = $self->{pids}{nginx} ? $self->pids : ();
    return 1 if !$engine || !@workers;
    my %has = map { $_ => 1 }
        $self->error_log =~ / (\d+)#\d+: .* attached: pid $engine,/g;
    my $want = $self->{workers} < @workers ? $self->{workers} : @workers;
    return $want <= grep { $has{$_} } @workers;
}

sub _slurp {
    my ($path) = @_;
    open my $f, '<', $path or return '';
    local $/;
    return scalar(<$f>) // '';
}

sub engine_log { _slurp("$_[0]{dir}/engine.log") }
sub error_log { _slurp("$_[0]{dir}/error.log") }
sub access_log { _slurp("$_[0]{dir}/access.log") }

# --- HTTP -----------------------------------------------------------------

sub connect {
    my ($self, %o) = @_;
    if (!$o{rcvbuf}) {
        return IO::Socket::INET->new(PeerAddr => '127.0.0.1',
            PeerPort => $self->{port}, Timeout => 10);
    }
    my $s = IO::Socket::INET->new(Proto => 'tcp') or return;
    setsockopt($s, SOL_SOCKET, SO_RCVBUF, pack('i', $o{rcvbuf}));
    CORE::connect($s, Socket::pack_sockaddr_in($self->{port},
        Socket::inet_aton('127.0.0.1'))) or return;
    return $s;
}

# A hash body is sent as JSON, with stream and model filled in if absent.
sub request_text {
    my ($self, $method, $path, $body, %h) = @_;
    $body = encode($body) if ref $body;
    my $host = delete $h{Host} // 'localhost';
    my $text = "$method $path HTTP/1.1\r\nHost: $host\r\n";
    $h{Connection} //= 'close';
    if (defined $body) {
        $h{'Content-Type'} //= 'application/json';
        $h{'Content-Length'} //= length $body if !$h{'Transfer-Encoding'};
    }
    $text .= "$_: $h{$_}\r\n" for sort keys %h;
    return "$text\r\n" . ($body // '');
}

sub request {
    my ($self, $method, $path, $body, %h) = @_;
    my $s = $self->connect or return { status => 0, body => "connect: $!" };
    print $s $self->request_text($method, $path, $body, %h);
    return LLM::Stream->new($s)->whole;
}

sub get { my ($self, $path, %h) = @_; $self->request('GET', $path, undef, %h) }
sub post { my ($self, $path, $body, %h) = @_; $self->request('POST', $path, $body, %h) }

# Starts a streamed request; returns a LLM::Stream to read it by.
sub stream {
    my ($self, $path, $body, %o) = @_;
    my $s = $self->connect(%o) or die "connect: $!";
    $body->{stream} = JSON::PP::true if ref $body;
    print $s $self->request_text('POST', $path, $body);
    return LLM::Stream->new($s);
}

# curl: the arguments as they are; returns its output, $? is left set.
sub curl {
    my ($self, @args) = @_;
    open my $p, '-|', 'curl', '-sS', '--max-time', 60, '--cacert',
        "$self->{dir}/tls.crt", @args or die "curl: $!";
    local $/;
    my $out = <$p> // '';
    close $p;
    return $out;
}

sub https { my ($self, $path) = @_; "https://localhost:$self->{tls}$path" }

# --- looking inside -------------------------------------------------------

sub status {
    my ($self) = @_;
    my $r = $self->get('/status');
    return eval { decode($r->{body}) } // {};
}

# One metric of the engine's state page.
sub metric {
    my ($self, $name) = @_;
    my $s = $self->status;
    my ($e) = grep { $_->{name} eq 'main' } @{ $s->{engines} // [] };
    return $e ? $e->{state}{$name} // $e->{$name} : undef;
}

sub pids {
    my ($self) = @_;
    my $master = $self->{pids}{nginx};
    return grep { $_ } map {
        m{^/proc/(\d+)/stat$} && _slurp($_) =~ /^\d+ \(.*\) \S (\d+)/ && $1 == $master
            ? m{(\d+)} : ()
    } glob '/proc/[0-9]*/stat';
}

sub rss_kb {
    my ($self, $pid) = @_;
    return _slurp("/proc/$pid/status") =~ /^VmRSS:\s+(\d+)/m ? $1 : 0;
}

sub cpu_s {
    my ($self, $pid) = @_;
    my @f = split ' ', _slurp("/proc/$pid/stat") =~ s/^.*\) //r;
    return (($f[11] // 0) + ($f[12] // 0)) / 100;
}

sub signal {
    my ($self, $name, $sig) = @_;
    return kill $sig, $self->{pids}{$name};
}

# Waits for a process to end; its wait status, or undef after the timeout.
sub reap {
    my ($self, $name, $timeout) = @_;
    my $st;
    my $pid = $self->{pids}{$name} or return;
    $self->wait_for(sub {
        waitpid($pid, POSIX::WNOHANG()) == $pid and $st = $?, 1
    }, $timeout // 10);
    delete $self->{pids}{$name} if defined $st;
    return $st;
}

sub reload {
    my ($self) = @_;
    my %old = map { $_ => 1 } $self->pids;
    $self->signal(nginx => 'HUP');
    return $self->wait_for(sub {
        (grep { !$old{$_} } $self->pids) >= $self->{workers}
    }, 20);
}

# Lines of the error log that done() must not complain about.
sub allow { my ($self, @re) = @_; push @{ $self->{allowed} }, @re }

sub pool_is_full {
    my ($self, $timeout) = @_;
    return $self->wait_for(sub {
        my $s = $self->status->{engines}[0] // return 0;
        my $m = $s->{state} // $s;
        ($m->{blocks_total} // -1) == ($m->{blocks_free} // -2) + ($m->{blocks_cached} // 0)
            && ($m->{requests_held} // 1) == 0;
    }, $timeout // 10);
}

# Ends everything and asserts what must hold after any test.
sub done {
    my ($self) = @_;
    if ($self->{pids}{engine} && $self->{pids}{nginx} && kill(0, $self->{pids}{engine})) {
        ok($self->pool_is_full, 'every block is free or cached at the end')
            or diag(encode($self->status));
    }
    $self->stop('nginx', 'TERM');
    $self->stop('engine', 'TERM');
    my $log = $self->error_log;
    my @alerts = grep { my $l = $_; !grep { $l =~ $_ } @{ $self->{allowed} } }
        grep { /\[(?:alert|emerg|crit)\]|exited with code [1-9]/ } split /\n/, $log;
    is(join("\n", @alerts), '', 'no alerts in the error log');
    my $reports = join '', grep { /Sanitizer|runtime error|Assertion/ } split /^/m,
        join '', $self->engine_log, _slurp("$self->{dir}/stderr.log"),
        map { _slurp($_) } glob "$self->{dir}/asan/*";
    is($reports, '', 'no sanitizer report, no failed assertion');
    $self->clean_up;
    done_testing();
}

sub stop {
    my ($self, $name, $sig) = @_;
    return if !$self->{pids}{$name};
    $self->signal($name, $sig);
    return if defined $self->reap($name, 10);
    diag("$name did not end on SIG$sig");
    $self->signal($name, 'KILL');
    $self->reap($name, 10);
}

sub DESTROY {
    my ($self) = @_;
    return if $self->{owner} != $$;
    return if ${^GLOBAL_PHASE} eq 'DESTRUCT' && $self->{ended};
    $self->clean_up;
}

sub clean_up {
    my ($self) = @_;
    local ($?, $@);
    $self->{ended} = 1;
    for my $name (keys %{ $self->{pids} }) {
        my @children = $name eq 'nginx' ? $self->pids : ();
        kill 'KILL', $self->{pids}{$name}, @children;
        waitpid $self->{pids}{$name}, 0;
    }
    if ($ENV{LLM_KEEP} || !Test::More->builder->is_passing) {
        diag("left behind: $self->{dir}");
        diag("engine: $_") for grep { defined } (split /\n/, $self->engine_log)[-5 .. -1];
    } else {
        File::Path::remove_tree($self->{dir});
    }
}

package LLM::Stream;

# One answer, read as it comes: status and head, then the body, chunked or
# not, whole or event by event.

use strict;
use warnings;
use IO::Select;
use Time::HiRes qw(time);

sub new {
    my ($class, $sock) = @_;
    return bless { sock => $sock, raw => '', body => '', eof => 0, bytes => 0 }, $class;
}

sub socket { $_[0]{sock} }

# Reads more; 0 at the end or after timeout seconds.
sub fill {
    my ($self, $timeout) = @_;
    return 0 if $self->{eof};
    if (!IO::Select->new($self->{sock})->can_read($timeout // 30)) {
        $self->{timeout} = 1;
        return 0;
    }
    my $n = sysread $self->{sock}, my $buf, 65536;
    if (!$n) {
        $self->{eof} = 1;
        $self->{reset} = 1 if !defined $n;
        return 0;
    }
    $self->{raw} .= $buf;
    $self->{bytes} += $n;
    return 1;
}

sub head {
    my ($self, $timeout) = @_;
    return $self->{headers} if $self->{headers};
    until ($self->{raw} =~ /\r\n\r\n/) {
        $self->fill($timeout) or return;
    }
    (my $head, $self->{raw}) = split /\r\n\r\n/, $self->{raw}, 2;
    my ($first, @lines) = split /\r\n/, $head;
    ($self->{status}) = $first =~ m{^HTTP/1\.\d (\d+)};
    $self->{headers} = { map { /^([^:]+):\s*(.*)$/ ? (lc $1, $2) : () } @lines };
    return $self->{headers};
}

sub status { my ($self, $timeout) = @_; $self->head($timeout); $self->{status} // 0 }

# Moves what is whole from raw to body; 1 when the answer is complete.
sub unchunk {
    my ($self) = @_;
    my $h = $self->{headers};
    if (($h->{'transfer-encoding'} // '') ne 'chunked') {
        $self->{body} .= $self->{raw};
        $self->{raw} = '';
        $self->{whole} = 1 if defined $h->{'content-length'}
            && length $self->{body} >= $h->{'content-length'};
        return;
    }
    while ($self->{raw} =~ /^([0-9a-fA-F]+)[^\r]*\r\n/) {
        my ($n, $skip) = (hex $1, $+[0]);
        return if length $self->{raw} < $skip + $n + 2;
        $self->{body} .= substr $self->{raw}, $skip, $n;
        substr($self->{raw}, 0, $skip + $n + 2) = '';
        $self->{whole} = 1, return if $n == 0;
    }
}

# The whole answer: { status, headers, body, complete }.
sub whole {
    my ($self, $timeout) = @_;
    if ($self->head($timeout)) {
        $self->unchunk;
        while (!$self->{whole} && $self->fill($timeout)) {
            $self->unchunk;
        }
    }
    return {
        status => $self->{status} // 0, headers => $self->{headers} // {},
        body => $self->{body}, complete => $self->{whole} ? 1 : 0,
    };
}

# The next server-sent event of what has been read, as text; undef if there is none.
sub _event_read {
    my ($self) = @_;
    $self->unchunk;
    while ($self->{body} =~ s/^(.*?)\n\n//s) {
        my $event = $1;
        next if $event =~ /^:/ && ++$self->{pings};
        return $self->{last} = $event =~ s/^data: //r;
    }
    return;
}

# The next server-sent event's data as text; undef at the end.
sub next_event {
    my ($self, $timeout) = @_;
    $self->head($timeout) or return;
    while (1) {
        my $event = $self->_event_read;
        return $event if defined $event;
        return if $self->{whole} || !$self->fill($timeout);
    }
}

# Takes the events that have come by now, without waiting, and returns their
# text.  What was sent before something went wrong lies in the socket's buffer
# and is no sign of life: only what next_event() gives after this may be one.
sub drain {
    my ($self) = @_;
    local $self->{timeout}; # nobody waited
    1 while $self->fill(0);
    return if !$self->head(0);
    my @events;
    while (defined(my $e = $self->_event_read)) { push @events, $e }
    return @events;
}

# Was the end of it read, in whatever way?
sub ended { $_[0]{whole} || $_[0]{eof} }

# Does it go on after what has come by now, or has it come to a proper end?
sub goes_on {
    my ($self, $timeout) = @_;
    $self->drain;
    return ($self->{last} // '') eq '[DONE]' if $self->ended;
    my $e = $self->next_event($timeout);
    return defined $e && $e !~ /^\{"error"/;
}

# All events to the end; [DONE] is left out and noted.
sub events {
    my ($self, $timeout) = @_;
    my @events;
    while (defined(my $e = $self->next_event($timeout))) {
        if ($e eq '[DONE]') { $self->{done_seen} = 1; next }
        push @events, LLM::decode($e);
    }
    return @events;
}

# The text of choice $i (0) of a stream read to its end.
sub text {
    my ($self, $i, $timeout) = @_;
    return join '', map {
        map { $_->{text} // $_->{delta}{content} // '' }
            grep { $_->{index} == ($i // 0) } @{ $_->{choices} // [] }
    } $self->events($timeout);
}

sub close { close $_[0]{sock} }

1;
