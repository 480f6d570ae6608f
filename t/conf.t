#!/usr/bin/env perl
# The sample configurations start as they stand, full.conf names every
# directive there is, and wrong ones are refused with file and line.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $t = LLM->new(engine => [qw(--device null --model_name m)]);
my $root = LLM->root;

# full.conf asks for a key, nginx.conf for none
my $key = qx($root/conf/llm-key add $t->{dir}/keys somebody);
chomp $key;
chmod 0644, "$t->{dir}/keys";
my @bearer = (Authorization => "Bearer $key");

sub slurp { open my $f, '<', $_[0] or die "$_[0]: $!"; local $/; <$f> }

for my $file ('nginx.conf', 'full.conf') {
    $t->stop(nginx => 'TERM');
    my $text = slurp("$root/conf/$file");
    $text =~ s{^load_module.*\n}{}m;
    $text =~ s{^(?:user|pid|error_log|daemon)\s.*\n}{}mg;
    $text =~ s{^(\s*access_log\s+)/\S+}{$1$t->{dir}/access.log}mg;
    $text =~ s{unix:/run/llm/\w+\.sock}{unix:$t->{socket}}g;
    $text =~ s{listen\s+(?:\[::\]:)?(?:8080|80)\b}{listen 127.0.0.1:$t->{port}}g;
    $text =~ s{listen\s+(?:\[::\]:)?(?:8443|443)\b}{listen 127.0.0.1:$t->{tls}}g;
    $text =~ s{/etc/nginx/llm/localhost\.(crt|key)}{$t->{dir}/tls.$1}g;
    $text =~ s{/var/log/nginx/llm-usage.log}{$t->{dir}/usage.log}g;
    $text =~ s{/etc/nginx/llm/keys}{$t->{dir}/keys}g;
    $text =~ s{/usr/share/ngx_llm/page}{$t->page}ge;
    my $temp = $t->temp_paths;
    # the compiled default may be missing, or root's
    $temp .= "access_log $t->{dir}/access.log;\n" if $text !~ /^\s*access_log/m;
    $text =~ s/^http \{\n/$&$temp/m;
    ok($t->start_nginx($t->preamble . $text), "conf/$file starts")
        or diag($t->error_log);
    $t->wait_ready;
    my $r = $t->post('/v1/completions', { model => 'm', prompt => 'x', max_tokens => 4 },
        @bearer);
    is($r->{status}, 200, 'and serves') or diag("$r->{status} $r->{body}");
    is($t->get('/v1/models')->{status}, $file eq 'full.conf' ? 401 : 200, 'without a key');
    $r = $t->curl('-o', '/dev/null', '-w', '%{http_code}', '-H', join(': ', @bearer),
        $t->https('/v1/models'));
    is($r, 200, 'over TLS');
    $r = $t->get('/');
    is($r->{status}, 200, 'the page');
    like($r->{body}, qr/^<!DOCTYPE html>.*chat\.js/s, 'is there');
    like($r->{headers}{'content-security-policy'}, qr/default-src 'none'/, 'its policy');
    is($r->{headers}{'cache-control'}, 'no-cache', 'asked for anew');
    my %types = ('/' => 'text/html', '/chat.css' => 'text/css', '/chat.js' => 'text/javascript');
    is($t->get($_)->{headers}{'content-type'}, $types{$_}, "type of $_") for sort keys %types;
    is($t->request('HEAD', '/')->{status}, 200, 'HEAD');
    is($t->request('POST', '/', 'x')->{status}, 405, 'POST is not for it');
    is($t->get($_)->{status}, 404, "no $_") for '/nothing', '/v2/models', '/chat.js/x';
}

# every directive of the module is in full.conf, with its default
my $source = join '', map { slurp($_) } glob "$root/ngx_module/ngx_http_llm_*.c";
my $full = slurp("$root/conf/full.conf");
my %names = map { $_ => 1 } $source =~ /ngx_string\("(llm_\w+)"\),\s+NGX_/g;
cmp_ok(keys %names, '>', 8, 'directives: ' . keys %names);
like($full, qr/\b$_\b/, "full.conf explains $_") for sort keys %names;

my @vars = $source =~ /ngx_string\("(llm_\w+)"\),\s+NULL/g;
like($full, qr/\$$_\b/, "full.conf names \$$_") for @vars;

# refused
my $e = "llm_engine e { server unix:$t->{socket}; }";
sub refused {
    my ($what, $http, $location, $like) = @_;
    my $conf = $t->preamble . "events {}\nhttp {\n" . $t->temp_paths . "$http\n"
        . "server { listen 127.0.0.1:$t->{port}; location / { $location } }\n}\n";
    $t->write_conf($conf);
    my $nginx = $ENV{LLM_NGINX} // '/usr/sbin/nginx';
    my $out = `ASAN_OPTIONS=detect_leaks=0 $nginx -t -p $t->{dir} -e $t->{dir}/test.log -c $t->{dir}/nginx.conf 2>&1`;
    isnt($?, 0, "$what: refused") or diag($conf);
    like($out, qr/\[emerg\].*$like.* in \S*nginx\.conf:\d+/s, "$what: file and line");
}
refused('unknown engine', $e, 'llm_pass nobody;', 'nobody');
refused('duplicate engine', "$e\n$e", 'llm_pass e;', 'e');
refused('no server', 'llm_engine e { }', 'llm_pass e;', 'server');
refused('not unix', 'llm_engine e { server 127.0.0.1:80; }', 'llm_pass e;', 'unix');
refused('long path', 'llm_engine e { server unix:/' . 'a' x 200 . '; }', 'llm_pass e;', 'long');
refused("queue $_", "llm_engine e { server unix:/x; queue $_; }", 'llm_pass e;', 'queue')
    for '-1', 'many', '5 timeout=0', '5 time=1s', '5 timeout=1s 2', '5; queue 5';
refused('many engines', 'llm_model m engine=e0;', 'llm_pass ' . join(' ', map { "e$_" } 0 .. 64)
    . ';', 'more than 64');
refused('bad parameter', "llm_engine e { server unix:/x; colour blue; }", 'llm_pass e;', 'colour');
refused('bad value', $e, 'llm_pass e; llm_output_buffer x;', 'llm_output_buffer');
refused('duplicate', $e, 'llm_pass e; llm_pass e;', 'duplicate');
refused("origin: $_->[0]", $e, "llm_pass e; llm_cors $_->[1];", 'invalid origin')
    for [ 'no scheme', 'example.com' ], [ 'a path', 'https://example.com/' ],
    [ 'any and another', '* https://a.example' ], [ 'off and another', 'off https://a.example' ];
refused('bad format', $e, 'llm_status yaml;', 'yaml');

$t->done;
